// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// node is an element of a file.
type node struct {
	name     string
	attrs    []xml.Attr
	text     string
	children []*node
	at       iptables.Position
}

// maxDepth bounds how deep elements may stand in one another.
const maxDepth = 20

// parse returns the outermost element of a file.
func parse(file iptables.File) (*node, error) {
	d := xml.NewDecoder(bytes.NewReader(file.Data))
	d.Strict = true
	top := &node{}
	stack := []*node{top}
	for {
		line, _ := d.InputPos()
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.Name, err)
		}
		last := stack[len(stack)-1]
		switch t := token.(type) {
		case xml.StartElement:
			n := &node{name: t.Name.Local, attrs: slices.Clone(t.Attr)}
			n.at = iptables.Position{File: file.Name, Line: line, Text: n.String()}
			last.children = append(last.children, n)
			if stack = append(stack, n); len(stack) > maxDepth {
				return nil, fmt.Errorf("%s:%d: the elements are too deep in one another", file.Name, line)
			}
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			last.text += string(t)
		}
	}
	if len(top.children) != 1 {
		return nil, fmt.Errorf("%s: it has no element, or more than one", file.Name)
	}
	return top.children[0], nil
}

// String is the element as it is written, without what is in it.
func (n *node) String() string {
	var b strings.Builder
	b.WriteString("<" + n.name)
	for _, a := range n.attrs {
		fmt.Fprintf(&b, " %s=%q", a.Name.Local, a.Value)
	}
	return b.String() + "/>"
}

// attr is the value of an attribute, or "".
func (n *node) attr(name string) string {
	for _, a := range n.attrs {
		if a.Name.Local == name {
			return strings.TrimSpace(a.Value)
		}
	}
	return ""
}

// yes reports whether an attribute is set.
func (n *node) yes(name string) bool {
	return slices.Contains([]string{"yes", "true", "1"}, strings.ToLower(n.attr(name)))
}

// child is the first element of some names, or nil.
func (n *node) child(names ...string) *node {
	for _, c := range n.children {
		if slices.Contains(names, c.name) {
			return c
		}
	}
	return nil
}
