// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v4"
)

// How often a list is fetched.
const (
	DefaultEvery = 12 * time.Hour
	MinEvery     = time.Minute
	MaxEvery     = 30 * 24 * time.Hour
)

const (
	fileExample = "file: /etc/portcullis/partners.txt"
	urlExample  = "url: \"https://example.net/bad.txt\", every: 12h"
)

// listElsewhere reads {file: PATH} or {url: URL, every: DURATION}, and of a recorded policy what such a list held.
func (d *document) listElsewhere(name, v *yaml.Node, l *List) {
	values := make(map[string]*yaml.Node)
	var unknown bool
	d.entries(v, func(key, value *yaml.Node) {
		known := key.Value == "file" || key.Value == "url" || key.Value == "every" ||
			d.reader.recorded && (key.Value == "networks" || key.Value == "digest")
		if !known {
			unknown = true
			d.errorf(key, "unknown key %s in list %s: write file: and a path, or url: and every:", quote(key.Value), quote(name.Value))
			return
		}
		values[key.Value] = value
	})
	if unknown {
		return
	}
	for _, value := range values {
		if d.bad[value] {
			l.broken = true
			return
		}
	}
	switch file, from, every := values["file"], values["url"], values["every"]; {
	case file != nil && from != nil:
		d.errorf(from, "list %s has a file and a url: keep one", quote(name.Value))
	case from != nil:
		d.listURL(name, v, from, every, l)
	case every != nil:
		d.errorf(every, "list %s has no url to fetch so often: write {%s}", quote(name.Value), urlExample)
	case file != nil:
		d.listFile(name, v, file, l)
	case len(v.Content) == 0:
		d.errorf(v, "nothing in the braces of list %s: write {file: PATH}, or [] for no networks", quote(name.Value))
	default:
		d.errorf(v, "no file or url in list %s: write {%s}", quote(name.Value), fileExample)
	}
	if d.reader.recorded && len(d.problems) == 0 {
		d.listRecord(v, values["networks"], values["digest"], l)
	}
}

// listFile reads {file: PATH}. A relative path begins where the policy file is.
func (d *document) listFile(name, v, file *yaml.Node, l *List) {
	if isNull(file) || file.Kind != yaml.ScalarNode || file.Value == "" {
		d.errorf(v, "no path of a file for list %s: write %s", quote(name.Value), fileExample)
		return
	}
	l.File, l.Path = file.Value, file.Value
	if !filepath.IsAbs(l.Path) {
		l.Path = filepath.Join(filepath.Dir(d.file), l.Path)
	}
	if d.reader.recorded {
		return
	}
	data, err := d.reader.readList(l.Path)
	if err != nil {
		// The error itself is left out: that a list is missing is not that the policy file is.
		hint := ""
		if errors.Is(err, fs.ErrNotExist) {
			hint = ": put the file there, or name another"
		}
		d.errorf(file, "cannot read list %s: %s%s", quote(name.Value), err, hint)
		return
	}
	text := d.reader.Cache.read(l.Path, data)
	d.texts[l.Name], l.Networks = text, text.Networks
	l.broken = text.Refused != ""
}

// listURL reads {url: URL, every: DURATION}. A list that has not been fetched yet, or whose copy has been spoilt, is no
// mistake of who wrote the file.
func (d *document) listURL(name, v, from, every *yaml.Node, l *List) {
	if isNull(from) || from.Kind != yaml.ScalarNode || from.Value == "" {
		d.errorf(v, "no url for list %s: write %s", quote(name.Value), urlExample)
		return
	}
	if bad := checkURL(from.Value); bad != "" {
		d.errorf(from, "url %s for list %s %s", quote(from.Value), quote(name.Value), bad)
		return
	}
	l.URL, l.Every = from.Value, DefaultEvery
	if every != nil {
		what := fmt.Sprintf("list %s every", quote(name.Value))
		if isNull(every) || every.Kind != yaml.ScalarNode {
			d.errorf(every, "no duration for %s: write 12h", what)
			return
		}
		n, err := ParseDuration(every.Value)
		if err != nil {
			d.errorf(every, "%s: %s", what, err)
			return
		}
		if n < MinEvery || n > MaxEvery {
			d.errorf(every, "%s %s is out of range: write 1m to 30d", what, quote(every.Value))
			return
		}
		l.Every = n
	}
	if d.reader.recorded {
		return
	}
	l.Admits = d.isAdmitting(l.Name)
	l.Missing = "it has not been fetched from " + l.URL + " yet"
	if d.reader.ReadURL == nil {
		return
	}
	data, err := d.reader.ReadURL(*l)
	if err != nil {
		l.Missing = err.Error()
		return
	}
	text := d.reader.Cache.read(l.URL, data)
	if text.Refused != "" {
		l.Missing = "the copy of " + l.URL + " is no good: " + text.Refused
		return
	}
	l.Missing = ""
	d.texts[l.Name], l.Networks = text, text.Networks
}

// isAdmitting reports whether anything but block names a list. It goes by what is written, as rules that name a list which
// has not been fetched cannot be read.
func (d *document) isAdmitting(name string) bool {
	if d.admits == nil {
		d.admits = make(map[string]bool)
		d.entries(d.root, func(key, value *yaml.Node) {
			if key.Value != "lists" && key.Value != "block" {
				d.admitNamed(value)
			}
		})
	}
	return d.admits[name]
}

// admitNamed marks the lists that are named anywhere below a node.
func (d *document) admitNamed(n *yaml.Node) {
	for word := range strings.FieldsFuncSeq(n.Value, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		if name, ok := strings.CutPrefix(word, listMark); ok {
			d.admits[name] = true
		}
	}
	for _, below := range n.Content {
		d.admitNamed(below)
	}
}

// checkURL says what keeps a list from being fetched from a URL, and what to write, or "".
func checkURL(text string) string {
	const most = 2000
	u, err := url.Parse(text)
	switch {
	case err != nil || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return "cannot be read: write one such as https://example.net/bad.txt"
	case len(text) > most:
		return fmt.Sprintf("is longer than %d bytes", most)
	case u.Scheme != "https":
		return "is not fetched: write one that begins with https://"
	case u.Hostname() == "":
		return "names no host: write one such as https://example.net/bad.txt"
	case u.User != nil:
		return "names a user: everybody who can ask for a status would see the password, leave it out"
	case u.Fragment != "":
		return "has a part behind #: leave it out"
	}
	return ""
}

// listRecord reads what a list held, of which only a digest is known now.
func (d *document) listRecord(v, networks, digest *yaml.Node, l *List) {
	if networks == nil || digest == nil {
		d.errorf(v, "it is not recorded what list %s held", quote(l.Name))
		return
	}
	n, err := strconv.Atoi(networks.Value)
	if err != nil || n < 0 || len(digest.Value) != 2*digestSize {
		d.errorf(v, "what list %s held is no number and digest", quote(l.Name))
		return
	}
	d.held[l.Name] = &Networks{Count: n, Digest: digest.Value}
}
