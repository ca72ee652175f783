// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"strings"
)

// maxTokens bounds what variables, which may hold one another, make of a file.
const maxTokens = 1 << 20

// scope holds the variables of a block, by name.
type scope map[string][]token

// expand puts what "define" says in the place of variables. A block has
// variables of its own.
func expand(file string, in []token) ([]token, error) {
	var out []token
	scopes := []scope{{}}
	for i := 0; i < len(in); i++ {
		t := in[i]
		first := len(out) == 0 || out[len(out)-1].ends() || out[len(out)-1].is("{") || out[len(out)-1].is("}")
		switch {
		case first && (t.is("define") || t.is("redefine")) && i+2 < len(in) && in[i+2].is("="):
			name := in[i+1].text
			value, next, err := valueAt(file, in, i+3, scopes)
			if err != nil {
				return nil, err
			}
			into := scopes[len(scopes)-1]
			if t.is("redefine") {
				into = holder(scopes, name, into)
			}
			into[name] = value
			i = next - 1
			continue
		case first && t.is("undefine") && i+1 < len(in):
			delete(holder(scopes, in[i+1].text, scope{}), in[i+1].text)
			i++
			continue
		case t.is("{"):
			scopes = append(scopes, scope{})
		case t.is("}") && len(scopes) > 1:
			scopes = scopes[:len(scopes)-1]
		}
		more, err := valueOf(file, t, scopes)
		if err != nil {
			return nil, err
		}
		if out = append(out, more...); len(out) > maxTokens {
			return nil, fmt.Errorf("%s:%d: the variables hold too much", file, t.line)
		}
	}
	return out, nil
}

// holder is the innermost block that has a variable, or else another one.
func holder(scopes []scope, name string, otherwise scope) scope {
	for i := len(scopes) - 1; i >= 0; i-- {
		if _, ok := scopes[i][name]; ok {
			return scopes[i]
		}
	}
	return otherwise
}

// valueAt reads the value of a variable, up to the end of its command.
func valueAt(file string, in []token, i int, scopes []scope) (value []token, next int, err error) {
	depth := 0
	for ; i < len(in); i++ {
		t := in[i]
		switch {
		case t.ends() && depth == 0:
			return value, i, nil
		case t.ends():
			continue
		case t.is("{"):
			depth++
		case t.is("}"):
			depth--
		}
		more, err := valueOf(file, t, scopes)
		if err != nil {
			return nil, i, err
		}
		if value = append(value, more...); len(value) > maxTokens {
			return nil, i, fmt.Errorf("%s:%d: the variables hold too much", file, t.line)
		}
	}
	return value, i, nil
}

// valueOf is what a token stands for, at its place.
func valueOf(file string, t token, scopes []scope) ([]token, error) {
	name, isVariable := strings.CutPrefix(t.text, "$")
	if t.quoted || !isVariable {
		return []token{t}, nil
	}
	value, ok := holder(scopes, name, scope{})[name]
	if !ok {
		return nil, fmt.Errorf("%s:%d: $%s is not defined", file, t.line, name)
	}
	out := make([]token, len(value))
	for i, v := range value {
		out[i] = token{v.text, v.quoted, t.line, t.start, t.end}
	}
	return out, nil
}
