// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		url, prefix string
		local       bool
		endpoints   []string
	}{
		{"etcd://127.0.0.1", "/portcullis/", true, []string{"127.0.0.1:2379"}},
		{"etcd://127.3.2.1:1,localhost:2,[::1]:3/", "/portcullis/", true, []string{"127.3.2.1:1", "localhost:2", "[::1]:3"}},
		{"etcd://127.0.0.1,10.0.0.1", "/portcullis/", false, []string{"127.0.0.1:2379", "10.0.0.1:2379"}},
		{"etcd://[2001:db8::1]/sites/berlin", "/sites/berlin/", false, []string{"[2001:db8::1]:2379"}},
		{"etcd://e1.example.net:12379,e2.example.net/a/", "/a/", false, []string{"e1.example.net:12379", "e2.example.net:2379"}},
		{"etcd://[::ffff:127.0.0.1]", "/portcullis/", true, []string{"[::ffff:127.0.0.1]:2379"}},
		{"etcd://localhost.example.net", "/portcullis/", false, []string{"localhost.example.net:2379"}},
	} {
		p, err := parse(c.url)
		if err != nil || p.prefix != c.prefix || p.local != c.local || !slices.Equal(p.endpoints, c.endpoints) {
			t.Errorf("%s: %+v, %v", c.url, p, err)
		}
	}
	for url, want := range map[string]string{
		"":                                   "write etcd://",
		"http://127.0.0.1":                   "write etcd://",
		"etcd://":                            `"" is no host`,
		"etcd://a,,b":                        `"" is no host`,
		"etcd://a:0":                         `"0" is no port`,
		"etcd://a:65536":                     `"65536" is no port`,
		"etcd://a:x":                         `"x" is no port`,
		"etcd://2001:db8::1":                 "[ADDRESS]:2379",
		"etcd://a,a:2379":                    "a:2379 is named twice",
		"etcd://a b":                         "is no host",
		"etcd://https://a:2379":              "cannot be a folder",
		"etcd://a/../x":                      `cannot be a folder`,
		"etcd://a//x":                        `cannot be a folder`,
		"etcd://a?ca=x":                      "and no more",
		"etcd://root:secret@10.0.0.1/":       "no names and passwords",
		"etcd://a/" + string([]byte{0}):      "cannot be a folder",
		"etcd://a\n":                         "is no host",
		"etcd://" + strings.Repeat("a", 300): "is no host",
	} {
		if p, err := parse(url); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %+v, %v; want %q", url, p, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("etcd://[::1]:2379,a:1/b/c")
	f.Fuzz(func(t *testing.T, url string) {
		p, err := parse(url)
		if err != nil {
			return
		}
		// What is read once reads the same again, and leads to the same members.
		again, err := parse("etcd://" + p.String() + strings.TrimSuffix(p.prefix, "/"))
		if err != nil || again.prefix != p.prefix || again.local != p.local || !slices.Equal(again.endpoints, p.endpoints) {
			t.Errorf("%q is %+v, and that is %+v, %v", url, p, again, err)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	junk, open, missing := file("junk", "junk", 0o600), file("open", "junk", 0o640), filepath.Join(dir, "missing")
	for _, c := range []struct {
		url     string
		options store.Options
		want    string
	}{
		{"etcd://10.0.0.1", store.Options{}, "without TLS is refused"},
		{"etcd://127.0.0.1,10.0.0.1", store.Options{}, "without TLS is refused"},
		{"etcd://10.0.0.1", store.Options{CA: junk}, "without TLS is refused"},
		{"etcd://10.0.0.1", store.Options{Certificate: junk}, "go together"},
		{"etcd://10.0.0.1", store.Options{Key: junk}, "go together"},
		{"etcd://10.0.0.1", store.Options{Certificate: junk, Key: open}, "others"},
		{"etcd://10.0.0.1", store.Options{Certificate: junk, Key: junk}, junk},
		{"etcd://10.0.0.1", store.Options{Certificate: missing, Key: missing}, missing},
		{"etcd://10.0.0.1", store.Options{CA: missing, Certificate: junk, Key: junk}, missing},
		{"etcd://127.0.0.1", store.Options{CA: junk}, junk},
		{"etcd://10.0.0.1:x", store.Options{}, "no port"},
	} {
		s, err := Open(t.Context(), c.url, c.options)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %+v: %v; want %q", c.url, c.options, err, c.want)
		}
	}
	s, err := Open(t.Context(), "etcd://127.0.0.1:1", store.Options{})
	if err != nil {
		t.Fatalf("on loopback: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
