// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/policy"
)

func newKey(t testing.TB) *PrivateKey {
	t.Helper()
	k, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// fixedKey is the same in each run of a fuzzer.
func fixedKey() *PrivateKey {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	return &PrivateKey{newPublicKey(key.Public().(ed25519.PublicKey)).ID, key}
}

func sealed(t testing.TB, b *Bundle, k *PrivateKey) ([]byte, Target) {
	t.Helper()
	object, digest, err := b.Seal(k)
	if err != nil {
		t.Fatal(err)
	}
	return object, Target{digest, b.Serial}
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "fleet.key")
	k := newKey(t)
	if err := k.Save(file); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the private key has mode %v, %v", info.Mode(), err)
	}
	got, err := ReadPrivateKey(file)
	if err != nil || got.ID != k.ID || !got.key.Equal(k.key) {
		t.Errorf("read %v, %v", got, err)
	}
	public, err := ReadPublicKeys(PublicPath(file))
	if err != nil || len(public) != 1 || public[0].ID != k.ID {
		t.Errorf("read %v, %v", public, err)
	}
	if err := newKey(t).Save(file); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("a key was overwritten: %v", err)
	}
	for _, c := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{"", 0o640, "can be read by others"},
		{"", 0o604, "can be read by others"},
		{k.Public().String() + "\n", 0o600, "is a public key"},
		{"hello\n", 0o600, "is no key"},
		{privateMark + " AAAA\n", 0o600, "is damaged"},
	} {
		if c.text != "" {
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPrivateKey(file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, mode %o: %v, want %q", c.text, c.mode, err, c.want)
		}
	}
	several := filepath.Join(dir, "several.pub")
	text := "# ours\n" + k.Public().String() + " the office\n\n" + newKey(t).Public().String() + "\n"
	if err := os.WriteFile(several, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if keys, err := ReadPublicKeys(several); err != nil || len(keys) != 2 {
		t.Errorf("several keys: %v, %v", keys, err)
	}
	for text, want := range map[string]string{
		"":                         "there is no key in it",
		"x\n":                      ":1: this is no public key",
		"#\n" + privateMark + " A": ":2: this is a private key",
	} {
		if err := os.WriteFile(several, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPublicKeys(several); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// Whatever is altered of what is signed, it is refused; and what is signed for one thing is nothing for another.
func TestSignatures(t *testing.T) {
	k, other := newKey(t), newKey(t)
	keys := []PublicKey{other.Public(), k.Public()}
	object, target := sealed(t, &Bundle{Group: "web", Serial: 7, Policy: "open: [ssh]\n"}, k)
	if b, by, err := OpenBundle(object, target, "web", keys); err != nil || b.Policy != "open: [ssh]\n" || by != k.ID {
		t.Fatalf("opened %+v by %s, %v", b, by, err)
	}
	for i := range object {
		altered := bytes.Clone(object)
		altered[i] ^= 1
		if _, _, err := OpenBundle(altered, target, "web", keys); err == nil {
			t.Fatalf("byte %d was altered", i)
		}
		if _, _, err := OpenBundle(altered, Target{Digest(altered), 7}, "web", keys); err == nil {
			t.Fatalf("byte %d was altered, and the pointer with it", i)
		}
		if _, _, err := OpenBundle(object[:i], Target{Digest(object[:i]), 7}, "web", keys); err == nil {
			t.Fatalf("it was cut off at byte %d", i)
		}
	}
	for _, c := range []struct {
		target Target
		group  string
		keys   []PublicKey
		want   string
	}{
		{target, "db", keys, `of group "web"`},
		{Target{target.Bundle, 8}, "web", keys, "the bundle is number 7"},
		{Target{strings.Repeat("0", 64), 7}, "web", keys, "is not the one that is wanted"},
		{target, "web", keys[:1], "not signed by a key that is trusted here"},
		{target, "web", Without(keys, []KeyID{k.ID}), "not signed by a key that is trusted here"},
	} {
		if _, _, err := OpenBundle(object, c.target, c.group, c.keys); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v of %s: %v, want %q", c.target, c.group, err, c.want)
		}
	}
	pointer := &Pointer{Group: "web", Target: target}
	sealedPointer, err := pointer.Seal(k)
	if err != nil {
		t.Fatal(err)
	}
	if p, _, err := OpenPointer(sealedPointer, "web", keys); err != nil || p.Target != target {
		t.Errorf("opened %+v, %v", p, err)
	}
	if _, _, err := OpenPointer(object, "web", keys); !errors.Is(err, ErrSignature) {
		t.Errorf("a bundle is a pointer: %v", err)
	}
	forged := bytes.Replace(object, []byte("fleet bundle 1"), []byte("fleet pointer 1"), 1)
	if _, _, err := OpenPointer(forged, "web", keys); !errors.Is(err, ErrSignature) {
		t.Errorf("the signature of a bundle is one of a pointer: %v", err)
	}
	pointer.RevokedKeys = []KeyID{k.ID}
	if sealedPointer, err = pointer.Seal(k); err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenPointer(sealedPointer, "web", keys); err == nil || !strings.Contains(err.Error(), "which signs it") {
		t.Errorf("a key revokes itself: %v", err)
	}
	newer := bytes.Replace(object, []byte("fleet bundle 1"), []byte("fleet bundle 2"), 1)
	if _, _, err := OpenBundle(newer, Target{Digest(newer), 7}, "web", keys); err == nil || !strings.Contains(err.Error(), "install a newer portcullis") {
		t.Errorf("a newer format: %v", err)
	}
	large := &Bundle{Group: "web", Serial: 1, Policy: strings.Repeat("#", store.MaxSize)}
	if _, _, err := large.Seal(k); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("a bundle that is too large: %v", err)
	}
	unknown, err := seal(kindBundle, k, []byte(`{"group":"web","serial":7,"policy":"{}","settings":{},"deny":["h1"]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenBundle(unknown, Target{Digest(unknown), 7}, "web", keys); err == nil || !strings.Contains(err.Error(), `unknown field "deny"`) {
		t.Errorf("a bundle says what this version does not know: %v", err)
	}
}

func TestWaves(t *testing.T) {
	bundle := strings.Repeat("ab", 32)
	var names []string
	for i := range 2000 {
		names = append(names, fmt.Sprintf("h%d", i))
	}
	share := func(w *Wave) (n int) {
		for _, name := range names {
			if w.Has(name, bundle) {
				n++
			}
		}
		return n
	}
	if n := share(&Wave{Hosts: []string{"h1"}}); n != 1 {
		t.Errorf("a wave of one host has %d", n)
	}
	if n := share(&Wave{Percent: 25}); n < 400 || n > 600 {
		t.Errorf("a quarter of 2,000 is %d", n)
	}
	if n := share(&Wave{Percent: 100}); n != 2000 {
		t.Errorf("all of 2,000 are %d", n)
	}
	small, large := &Wave{Percent: 5}, &Wave{Percent: 25}
	for _, name := range names {
		if small.Has(name, bundle) && !large.Has(name, bundle) {
			t.Errorf("%s is in the small wave alone", name)
		}
	}
	p := &Pointer{Target: Target{bundle, 2}, Wave: &Wave{Hosts: []string{"h1"}}, Before: &Target{"x", 1}}
	if got, ok := p.For("h1"); !ok || got.Serial != 2 {
		t.Errorf("h1 runs %v", got)
	}
	if got, ok := p.For("h2"); !ok || got.Serial != 1 {
		t.Errorf("h2 runs %v", got)
	}
}

func TestRender(t *testing.T) {
	h := &Host{Name: "h1", Group: "web", Facts: Facts{
		Interfaces: map[string]Words{"public": {"eth0", "eth1"}}, Addresses: map[string]Words{"office": {"203.0.113.0/24"}}, Ports: map[string]Words{"app": {"8080"}}}}
	list := strings.Repeat("0", 64)
	b := &Bundle{
		Policy: "interfaces: [{{interfaces.public}}]\nicmp: drop\nopen:\n  - ssh from {{ addresses.office }}\n  - {{ports.app}}/tcp\nlists:\n  bad: {file: bad.txt}\n  own: {file: /etc/own.txt}\nblock: ['@bad']\n",
		Layer:  "icmp: accept\nopen: [53/udp, 'ssh  from  203.0.113.0/24']\ntimeouts: {udp: 10s}\n",
		Hosts:  map[string]string{"h1": "open: [9090/tcp]\nclose: [53/udp]\nblock: [198.51.100.1]\n", "h2": "open: [1/tcp]\n"},
		Lists:  map[string]string{"bad.txt": list},
	}
	text, err := b.Render(h, func(digest string) string { return "/lists/" + digest })
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Reader{ReadList: func(path string) ([]byte, error) {
		if path != "/lists/"+list && path != "/etc/own.txt" {
			t.Errorf("the list %s is read", path)
		}
		return []byte("192.0.2.0/24\n"), nil
	}}.Parse("rendered", []byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	want, err := policy.Reader{}.Parse("wanted", []byte("interfaces: [eth0, eth1]\nicmp: accept\nopen: [ssh from 203.0.113.0/24, 8080/tcp, 9090/tcp]\ntimeouts: {udp: 10s}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(policy.Texts(p.Open), policy.Texts(want.Open)) || !slices.Equal(p.Interfaces, want.Interfaces) || len(p.Block) != 2 || p.Timeout("udp") != want.Timeout("udp") {
		t.Errorf("it comes to\n%s", text)
	}
	for _, c := range []struct{ policy, layer, want string }{
		{"open: [{{ports.web}}/tcp]\n", "", "the group's policy:1: host h1 has no fact ports.web"},
		{"\nopen: [{{env.HOME}}/tcp]\n", "", "the group's policy:2: unknown variable {{env.HOME}}"},
		{"open: [{{ports.app]\n", "", "the group's policy:1: a variable that begins with {{ has no end"},
		{"open: [{{{{ports.app}}}}]\n", "", "unknown variable"},
		{"open: [ssh]\n", "open: {{ports.none}}\n", "the group's layer:1: host h1 has no fact"},
		{"open: [ssh]\n", "close: [22/tcp]\n", `the group's layer: line 1: close: no layer before opens "22/tcp"`},
		{"open: [ssh]\n", "- ssh\n", "the group's layer: it has no keys"},
		{"open: [ssh]\n", "open: [\n", "the group's layer: "},
	} {
		b := &Bundle{Policy: c.policy, Layer: c.layer}
		if text, err := b.Render(h, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q and %q: %q, %v; want %q", c.policy, c.layer, text, err, c.want)
		}
	}
}

func TestConfig(t *testing.T) {
	c, err := ParseConfig("/etc/portcullis/fleet.yaml", []byte(`{from: "dir:fleet", key: fleet.pub, group: web, name: h1, facts: {interfaces: {public: eth0, inside: [eth1, wg0]}}}`))
	if err != nil || c.From != "dir:/etc/portcullis/fleet" || c.Key[0] != "/etc/portcullis/fleet.pub" || !slices.Equal(c.Facts.Interfaces["inside"], Words{"eth1", "wg0"}) {
		t.Errorf("read %+v, %v", c, err)
	}
	const good = "from: https://x/\nkey: a.pub\ngroup: web\nname: h1\n"
	for text, want := range map[string]string{
		"":                                      `there is no "from:"`,
		"from: dir:x\n":                         `there is no "key:"`,
		good + "keys: b.pub\n":                  `fleet.yaml:5: unknown key "keys": the keys are from, key, group, name, facts, address, ca, certificate, private`,
		good + "facts: {ports: {app: 70000}}\n": `ports.app: "70000" is no port`,
		good + "facts: {ports: {app: '1]'}}\n":  `is no port`,
		good + "facts: {interfaces: {a: 'eth0, x'}}\n": `is no name of an interface`,
		good + "facts: {addresses: {a: any}}\n":        `is no address or network`,
		good + "facts: {hosts: {a: b}}\n":              `fleet.yaml:5: unknown key "hosts"`,
		good + "facts: {ports: {A: 1}}\n":              `a fact is named`,
		good + "certificate: a.crt\n":                  "belong together",
		good + "address: here\n":                       "is no address",
		"from: dir:x\nkey: a\ngroup: ../x\nname: h1\n": `"../x" is no name of a group`,
		"from: dir:x\nkey: a\ngroup: web\nname: H1\n":  `"H1" is no name of a host`,
		good + "name: h2\n":                            "fleet.yaml:5",
	} {
		if c, err := ParseConfig("fleet.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %q", text, c, err, want)
		}
	}
}

func TestGroupFile(t *testing.T) {
	g, err := ParseGroupFile("/srv/web.yaml", []byte("layer: layer.yaml\nprobes:\n  - 22/tcp from h2,h3\n  - connect [2001:db8::1]:53\nwithin: 5s\nbans: {most: 10}\n"))
	if err != nil || g.Layer != "/srv/layer.yaml" || len(g.Probes) != 2 || g.Probes[0].Port != 22 || !slices.Equal(peersOf(g.Settings()), []string{"h2", "h3"}) || g.Bans.Limit() != 10 {
		t.Errorf("read %+v, %v", g, err)
	}
	for text, want := range map[string]string{
		"probes: [ssh]\n":            "probe \"ssh\": write",
		"probes: [22/udp from h2]\n": "write",
		"probes: [22/tcp from H2]\n": "is no name of a host",
		"probes: [connect x]\n":      "write",
		"probes: [connect x:0]\n":    "write",
		"within: soon\n":             `within: "soon" is no time`,
		"within: 1h\n":               "within 1h0m0s: a host confirms within",
		"bans: {most: 100000}\n":     "bans: most 100000",
		"prober: x\n":                `unknown key "prober"`,
	} {
		if g, err := ParseGroupFile("web.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %q", text, g, err, want)
		}
	}
}

// No object makes a host do more than refuse it, and what it takes is signed.
func FuzzOpen(f *testing.F) {
	k := fixedKey()
	keys := []PublicKey{k.Public()}
	object, target := sealed(f, &Bundle{Group: "web", Serial: 1, Policy: "open: [ssh]\n"}, k)
	p, err := (&Pointer{Group: "web", Target: target}).Seal(k)
	if err != nil {
		f.Fatal(err)
	}
	bans, err := (&BanList{Group: "web", By: OperatorBans, Serial: 1}).Seal(k)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{object, p, bans, nil, []byte("\n\n"), p[:40]} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, _, err := OpenBundle(text, Target{Digest(text), 1}, "web", keys); err == nil && !bytes.Equal(text, object) {
			t.Errorf("a forged bundle is taken: %q", text)
		}
		if _, _, err := OpenPointer(text, "web", keys); err == nil && !bytes.Equal(text, p) {
			t.Errorf("a forged pointer is taken: %q", text)
		}
		if _, err := OpenBans(text, "web", OperatorBans, keys); err == nil && !bytes.Equal(text, bans) {
			t.Errorf("forged bans are taken: %q", text)
		}
		if l, err := OpenBans(text, "web", "h1", keys); err == nil && l.By != "h1" {
			t.Errorf("the bans of h1 are those of %q", l.By)
		}
		_, _ = PointerUnverified(text)
		if s, err := ParseStatus("h1", text); err == nil && s.Name != "h1" {
			t.Errorf("the status of h1 is that of %q", s.Name)
		}
	})
}

// A file that is read is one whose values are of their types: none can be more of a policy than its name says.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("from: dir:x\nkey: [a, b]\ngroup: web\nname: h1\nfacts: {interfaces: {a: eth0}, addresses: {a: [192.0.2.1, '2001:db8::/32']}, ports: {a: 1}}\n"))
	f.Add([]byte("{from: 'https://x', key: k, group: g, name: n, facts: {ports: {a: '1\\n'}}}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := ParseConfig("fleet.yaml", text); err == nil {
			for _, values := range c.Facts.Ports {
				for _, v := range values {
					if strings.Trim(v, "0123456789") != "" {
						t.Errorf("a port is %q", v)
					}
				}
			}
			for _, kind := range []map[string]Words{c.Facts.Interfaces, c.Facts.Addresses} {
				for _, values := range kind {
					for _, v := range values {
						if strings.ContainsAny(v, " \n,[]{}#'\"") {
							t.Errorf("a fact is %q", v)
						}
					}
				}
			}
		}
		_, _ = ParseGroupFile("web.yaml", text)
	})
}

func peersOf(s Settings) []string { return s.Peers() }
