// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/policytest"
)

var update = flag.Bool("update", false, "write packaging/portcullis.yaml anew")

// A field of a policy that some part of the package forgets has no effect, or
// is lost. No field may be forgotten by any.
func TestEveryFieldCounts(t *testing.T) {
	base := policytest.Base(t)
	text := []byte("# first\n" + strings.ReplaceAll(string(base.YAML()), "\n", " # kept\n"))
	parsed := func(data []byte) *policy.Policy {
		t.Helper()
		p, err := policy.Parse("f", data)
		if err != nil {
			t.Fatalf("%s\n%v", data, err)
		}
		return p
	}
	if got := parsed(text); !got.Equal(base) {
		t.Fatalf("%s\nis not %+v", text, base)
	}
	for _, v := range policytest.Variants(t) {
		t.Run(v.Field, func(t *testing.T) {
			changes := policy.Diff(base, v.Policy)
			if len(changes) == 0 || len(policy.Diff(v.Policy, base)) != len(changes) || base.Equal(v.Policy) {
				t.Fatalf("the difference is %v, and back %v", changes, policy.Diff(v.Policy, base))
			}
			if c := v.Policy.Clone(); !reflect.DeepEqual(c, v.Policy) {
				t.Errorf("copied as %+v, not %+v", c, v.Policy)
			}
			if got := parsed(v.Policy.YAML()); !got.Equal(v.Policy) {
				t.Errorf("lost on the way through a file: %v", policy.Diff(v.Policy, got))
			}
			rewritten, err := policy.Rewrite("f", text, v.Policy)
			if err != nil {
				t.Fatal(err)
			}
			if got := parsed(rewritten); !got.Equal(v.Policy) || !bytes.HasPrefix(rewritten, []byte("# first\n")) {
				t.Errorf("rewritten as\n%s\nwhich lacks %v", rewritten, policy.Diff(v.Policy, got))
			}
			if was, is := bytes.Count(text, []byte("# kept")), bytes.Count(rewritten, []byte("# kept")); is < was-max(1, len(base.Open)-len(v.Policy.Open)) { // an entry takes its comment along
				t.Errorf("of %d comments %d are left:\n%s", was, is, rewritten)
			}
			apart := slices.Contains([]string{"interface", "open", "forward open"}, changes[0].Key)
			if shown := v.Policy.Settings().String() != base.Settings().String(); shown == apart {
				t.Errorf("a status shows %s", v.Policy.Settings())
			}
		})
	}
}

func TestSettings(t *testing.T) {
	p := policytest.Base(t)
	const text = "input drop (eth1 accept), forward drop, icmp [echo-request] (wg* drop), block [203.0.113.9, @bad (1 network)], trust [203.0.113.0/25], invalid log (eth1 accept), flows max 2048, timeouts udp 45s"
	if got := p.Settings().String(); got != text {
		t.Errorf("got  %s\nwant %s", got, text)
	}
	const object = `{"input":{"default":"drop","eth1":"accept"},"forward":"drop","icmp":{"default":["echo-request"],"wg*":"drop"},` +
		`"block":["203.0.113.9","@bad (1 network)"],"trust":["203.0.113.0/25"],` +
		`"invalid":{"default":"log","eth1":"accept"},"flows":{"max":"2048"},"timeouts":{"udp":"45s"}}`
	if got, err := json.Marshal(p.Settings()); err != nil || string(got) != object {
		t.Errorf("got  %s, %v\nwant %s", got, err, object)
	}
	var back policy.Settings
	if err := json.Unmarshal([]byte(object), &back); err != nil || !reflect.DeepEqual(back, p.Settings()) {
		t.Errorf("read back as %+v, %v", back, err)
	}
	for _, bad := range []string{"[]", "1", `{"input":1}`, `{"icmp":[1]}`, `{"flows":{"max":{}`} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s reads as %+v", bad, back)
		}
	}
	if back.Get("none") != nil || policy.Default().Settings().Get("invalid") != "log" {
		t.Error("Get does not find what there is")
	}
	if got := policy.Default().Settings().String(); got != "input drop, forward drop, icmp accept, invalid log" {
		t.Errorf("got %s", got)
	}
}

func TestKeysAreDescribed(t *testing.T) {
	var check func(section string, keys []policy.Key)
	check = func(section string, keys []policy.Key) {
		for _, k := range keys {
			if k.Name == "" || k.Values == "" || k.Meaning == "" || k.Default == "" && k.Keys == nil {
				t.Errorf("%s%s: lacks something: %+v", section, k.Name, k)
			}
			check(k.Name+" ", k.Keys)
		}
	}
	check("", policy.Keys())
	if k := policy.Keys()[1]; k.Name != "input" || k.Values != "drop, accept or reject" || k.Default != "drop" {
		t.Errorf("got %+v", k)
	}
}

func TestExampleIsInstalled(t *testing.T) {
	const path = "../packaging/portcullis.yaml"
	if *update {
		if err := os.WriteFile(path, policy.Example(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, policy.Example()) {
		t.Errorf("%s is not as the keys have it: go test ./policy -run %s -update", path, t.Name())
	}
}

// Every line of the example may stand in a file, also what is commented out.
func TestExampleIsGood(t *testing.T) {
	p, err := policy.Parse("example", policy.Example())
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Open) != 3 || len(p.Interfaces) != 1 {
		t.Errorf("it reads as %+v", p)
	}
	head, all, _ := strings.Cut(string(policy.Example()), "\n\n")
	all = strings.ReplaceAll(strings.ReplaceAll("\n"+all, "\n# ", "\n"), "\n- ", "\n  - ")
	whole, err := policy.Parse("example", []byte(head+"\n"+all))
	if err != nil {
		t.Fatalf("%v\n%s", err, all)
	}
	if len(whole.Open) != 7 || len(whole.Lists) != 1 {
		t.Errorf("it opens %v", whole.Open)
	}
	for _, k := range policy.Keys() {
		if !strings.Contains(all, "\n"+k.Name+":") {
			t.Errorf("it lacks %s", k.Name)
		}
	}
}

// README.md shows a whole file.
func TestReadmeShowsEveryKey(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(text), "```yaml\n")
	block, _, _ = strings.Cut(block, "```")
	p, err := policy.Parse("README.md", []byte(block))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range policy.Keys() {
		if !strings.Contains("\n"+block, "\n"+k.Name+":") {
			t.Errorf("it lacks %s", k.Name)
		}
	}
	// It says that it shows the defaults, but for these.
	p.Interfaces, p.Open, p.Block, p.Trust = nil, nil, nil, nil
	if changes := policy.Diff(policy.Default(), p); len(changes) > 0 || p.Timeout("udp") != 30*time.Second {
		t.Errorf("it shows what is no default: %v", changes)
	}
}
