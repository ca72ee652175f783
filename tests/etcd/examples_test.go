// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store/etcd"
)

const examples = "../../packaging/fleet"

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examples, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// load reads the documents of a YAML file, in which no key may stand twice.
func load(t *testing.T, name string) (documents []any) {
	t.Helper()
	loader, err := yaml.NewLoader(strings.NewReader(read(t, name)), yaml.WithUniqueKeys())
	if err != nil {
		t.Fatal(err)
	}
	for {
		var document any
		err := loader.Load(&document)
		if errors.Is(err, io.EOF) {
			return documents
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		documents = append(documents, document)
	}
}

// at returns what a path of keys and positions leads to.
func at(t *testing.T, document any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := document.(map[string]any)
			if document = m[step]; document == nil {
				t.Fatalf("there is no %q in %v of %v", step, m, path)
			}
		case int:
			list, _ := document.([]any)
			if step >= len(list) {
				t.Fatalf("there is no item %d in %v of %v", step, list, path)
			}
			document = list[step]
		}
	}
	return document
}

// The drop-in and the unit are one that systemd takes.
func TestDropIn(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze")
	}
	dir := t.TempDir()
	unit, err := os.ReadFile("../../packaging/portcullis.service")
	if err != nil {
		t.Fatal(err)
	}
	dropIn := read(t, "systemd/fleet.conf")
	if !strings.Contains(dropIn, "\nExecStart=\nExecStart=/usr/sbin/portcullis run --fleet /etc/portcullis/fleet.yaml\n") {
		t.Errorf("the drop-in does not replace what is started:\n%s", dropIn)
	}
	// systemd-analyze looks for the programs.
	installed := func(text []byte) []byte {
		return bytes.ReplaceAll(text, []byte("/usr/sbin/portcullis"), []byte("/bin/true"))
	}
	for name, text := range map[string][]byte{
		"portcullis.service":              installed(unit),
		"portcullis.service.d/fleet.conf": installed([]byte(dropIn)),
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	verify := exec.Command(analyze, "verify", "--man=no", filepath.Join(dir, "portcullis.service"))
	if out, err := verify.CombinedOutput(); err != nil || bytes.Contains(out, []byte("portcullis")) || bytes.Contains(out, []byte("fleet.conf")) {
		t.Errorf("%s: %v\n%s", verify, err, out)
	}
	// That it has read the drop-in at all: what is wrong in it is told.
	broken := []byte(strings.Replace(dropIn, "[Service]", "[Service]\nNonsense=yes", 1))
	if err := os.WriteFile(filepath.Join(dir, "portcullis.service.d/fleet.conf"), broken, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, _ := exec.Command(analyze, "verify", "--man=no", filepath.Join(dir, "portcullis.service")).CombinedOutput(); !bytes.Contains(out, []byte("Nonsense")) {
		t.Errorf("systemd-analyze does not read the drop-in:\n%s", out)
	}
}

// The manifest is checked by its structure alone: the schemas of Kubernetes are not at hand.
func TestDaemonSet(t *testing.T) {
	documents := load(t, "kubernetes/daemonset.yaml")
	kinds := map[string]any{}
	for _, d := range documents {
		kinds[at(t, d, "kind").(string)] = d
	}
	if len(documents) != 3 || kinds["Namespace"] == nil {
		t.Fatalf("there are %d documents: %v", len(documents), kinds)
	}
	config, set := kinds["ConfigMap"], kinds["DaemonSet"]
	namespace := at(t, kinds["Namespace"], "metadata", "name")
	for _, d := range []any{config, set} {
		if at(t, d, "metadata", "namespace") != namespace {
			t.Errorf("%v is in another namespace", at(t, d, "metadata"))
		}
	}
	selector, labels := at(t, set, "spec", "selector", "matchLabels"), at(t, set, "spec", "template", "metadata", "labels")
	for key, value := range selector.(map[string]any) {
		if labels.(map[string]any)[key] != value {
			t.Errorf("the selector wants %s: %v, and the pods have %v", key, value, labels)
		}
	}
	pod := at(t, set, "spec", "template", "spec")
	if at(t, pod, "hostNetwork") != true || at(t, pod, "automountServiceAccountToken") != false {
		t.Error("the pod is not on the network of the node, or has a token")
	}

	volumes, used := map[string]any{}, map[string]bool{}
	for _, v := range at(t, pod, "volumes").([]any) {
		volumes[at(t, v, "name").(string)] = v
	}
	if name := at(t, volumes["config"], "configMap", "name"); name != at(t, config, "metadata", "name") {
		t.Errorf("the pod wants the ConfigMap %v", name)
	}
	main, first := at(t, pod, "containers", 0), at(t, pod, "initContainers", 0)
	for _, container := range []any{main, first} {
		for _, mount := range at(t, container, "volumeMounts").([]any) {
			name := at(t, mount, "name").(string)
			used[name] = true
			if volumes[name] == nil {
				t.Errorf("there is no volume %q", name)
			}
		}
		context := at(t, container, "securityContext")
		if at(t, context, "readOnlyRootFilesystem") != true || at(t, context, "allowPrivilegeEscalation") != false || at(t, context, "capabilities", "drop", 0) != "ALL" {
			t.Errorf("a container may more than it needs: %v", context)
		}
	}
	if len(used) != len(volumes) {
		t.Errorf("of the volumes %v, %v are used", volumes, used)
	}
	// What must outlive the pod is the node's.
	for _, name := range []string{"bpf", "run", "state"} {
		at(t, volumes[name], "hostPath", "path")
	}

	// The pod has the capabilities of the unit.
	unit, err := os.ReadFile("../../packaging/portcullis.service")
	if err != nil {
		t.Fatal(err)
	}
	bounding := strings.Fields(strings.ReplaceAll(regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.*)$`).FindStringSubmatch(string(unit))[1], "CAP_", ""))
	var added []string
	for _, name := range at(t, main, "securityContext", "capabilities", "add").([]any) {
		added = append(added, name.(string))
	}
	slices.Sort(bounding)
	slices.Sort(added)
	if !slices.Equal(added, bounding) {
		t.Errorf("the pod has %q, and the unit %q", added, bounding)
	}

	// The first container makes a file that the agent reads.
	in, out := t.TempDir(), t.TempDir()
	for name, text := range at(t, config, "data").(map[string]any) {
		if err := os.WriteFile(filepath.Join(in, name), []byte(text.(string)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	script := strings.NewReplacer("/config", in, "/etc/portcullis/", out+"/", "/etc/portcullis", out).Replace(at(t, first, "args", 0).(string))
	configure := exec.Command("/bin/sh", "-ec", strings.ReplaceAll(script, out+"-host", "/etc/portcullis-host"))
	configure.Env = append(os.Environ(), "NODE_NAME=node-7.example.net")
	if said, err := configure.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	text, err := os.ReadFile(filepath.Join(out, "fleet.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c := parseConfig(t, string(text))
	if c.Name != "node-7.example.net" || c.Private != "/etc/portcullis-host/host.key" {
		t.Errorf("the node is %+v", c)
	}
}

// parseConfig reads a fleet.yaml, and sees that its store is one.
func parseConfig(t *testing.T, text string) *fleet.Config {
	t.Helper()
	c, err := fleet.ParseConfig("/etc/portcullis/fleet.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	dir := t.TempDir()
	o := store.Options{Certificate: filepath.Join(dir, "h.crt"), Key: filepath.Join(dir, "h.key")}
	if _, err := etcd.Open(t.Context(), c.From, o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is no store: %v", c.From, err)
	}
	return c
}

// The role writes a file that the agent reads. Where there is an ansible, it says so too.
func TestRole(t *testing.T) {
	var notified []string
	handlers := map[string]bool{}
	for _, h := range at(t, load(t, "ansible/handlers/main.yml"), 0).([]any) {
		handlers[at(t, h, "name").(string)] = true
	}
	for _, task := range at(t, load(t, "ansible/tasks/main.yml"), 0).([]any) {
		name := at(t, task, "name").(string)
		if wants, ok := task.(map[string]any)["notify"].(string); ok {
			notified = append(notified, wants)
		}
		for module, arguments := range task.(map[string]any) {
			a, _ := arguments.(map[string]any)
			if module != "ansible.builtin.copy" && module != "ansible.builtin.template" {
				continue
			}
			mode, _ := a["mode"].(string)
			if !regexp.MustCompile(`^0[67][045][045]$`).MatchString(mode) {
				t.Errorf("%s: mode %q", name, mode)
			}
			if dest, _ := a["dest"].(string); strings.HasSuffix(dest, ".key") && (mode != "0600" || task.(map[string]any)["no_log"] != true) {
				t.Errorf("%s: a key that others may read, or see in a log", name)
			}
			source, _ := a["src"].(string)
			dir := map[string]string{"ansible.builtin.copy": "files", "ansible.builtin.template": "templates"}[module]
			if !strings.Contains(source, "{{") {
				read(t, filepath.Join("ansible", dir, source))
			}
		}
	}
	for _, name := range notified {
		if !handlers[name] {
			t.Errorf("there is no handler %q", name)
		}
	}
	defaults := at(t, load(t, "ansible/defaults/main.yml"), 0).(map[string]any)
	play := at(t, load(t, "ansible/site.yml"), 0, 0, "roles", 0, "vars").(map[string]any)
	for name := range play {
		if _, known := defaults[name]; !known {
			t.Errorf("the example sets %q, which the role does not have", name)
		}
	}

	text := read(t, "ansible/templates/fleet.yaml.j2")
	text = regexp.MustCompile(`(?m)^\{%.*%\}\n`).ReplaceAllString(text, "")
	for expression, value := range map[string]string{
		"{{ ansible_managed }}":                  "managed",
		"{{ portcullis_fleet_from | to_json }}":  `"` + play["portcullis_fleet_from"].(string) + `"`,
		"{{ portcullis_fleet_group | to_json }}": `"web"`,
		"{{ portcullis_fleet_name | to_json }}":  `"h1"`,
		"{{ portcullis_fleet_facts | to_json }}": `{"interfaces": {"public": "eth0"}}`,
	} {
		text = strings.ReplaceAll(text, expression, value)
	}
	c := parseConfig(t, text)
	if c.Name != "h1" || c.Private != "/etc/portcullis/fleet-host.key" || len(c.Facts.Interfaces["public"]) != 1 {
		t.Errorf("the host is %+v", c)
	}

	playbook, err := exec.LookPath("ansible-playbook")
	if err != nil {
		t.Log("there is no ansible-playbook: neither the syntax nor the template was tried by Ansible itself")
		return
	}
	dir := t.TempDir()
	role, err := filepath.Abs(filepath.Join(examples, "ansible"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "roles"), 0o755), os.Symlink(role, filepath.Join(dir, "roles", "portcullis_fleet"))); err != nil {
		t.Fatal(err)
	}
	rendered := filepath.Join(dir, "fleet.yaml")
	render := `- hosts: localhost
  gather_facts: false
  vars_files: [roles/portcullis_fleet/defaults/main.yml]
  tasks:
    - ansible.builtin.template: {src: roles/portcullis_fleet/templates/fleet.yaml.j2, dest: ` + rendered + `, mode: "0600"}
      vars: {portcullis_fleet_from: "etcd://10.0.0.1", portcullis_fleet_group: web, portcullis_fleet_ca: ca, portcullis_fleet_certificate: c, portcullis_fleet_private: k}
`
	for name, text := range map[string]string{"site.yml": read(t, "ansible/site.yml"), "render.yml": render} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"--syntax-check", "site.yml"}, {"--connection", "local", "render.yml"}} {
		cmd := exec.Command(playbook, append([]string{"--inventory", "localhost,"}, args...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "ANSIBLE_LOCALHOST_WARNING=false", "ANSIBLE_HOME="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", cmd, err, out)
		}
	}
	if text, err := os.ReadFile(rendered); err != nil {
		t.Error(err)
	} else if c := parseConfig(t, string(text)); c.Name != "localhost" || c.Certificate == "" {
		t.Errorf("Ansible writes %+v", c)
	}
}
