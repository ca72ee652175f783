// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// literal is a sequence as a test case, to be pasted into a list of them; each packet with what became of it.
func (all moves) literal(name, in string, h hosts, netfilter, ours []verdict) string {
	family := 4
	if h.six {
		family = 6
	}
	var text strings.Builder
	fmt.Fprintf(&text, "{0, %q, &%s, %d, moves{\n", name, in, family)
	for i, s := range all.steps(h) {
		fmt.Fprintf(&text, "\t%s, // %s", fieldsOf(reflect.ValueOf(all[i])), s.name)
		if !s.out {
			fmt.Fprintf(&text, ": netfilter %s, Portcullis %s", netfilter[i], ours[i])
		}
		text.WriteByte('\n')
	}
	text.WriteString("}.steps},")
	return text.String()
}

// fieldsOf writes a struct without the fields that are zero.
func fieldsOf(v reflect.Value) string {
	var fields []string
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		switch {
		case f.IsZero():
		case f.Kind() == reflect.Struct:
			fields = append(fields, name+": "+f.Type().Name()+fieldsOf(f))
		case f.Kind() == reflect.String:
			fields = append(fields, fmt.Sprintf("%s: %q", name, f))
		case f.Kind() == reflect.Bool:
			fields = append(fields, name+": true")
		case name == "what" || name == "bits":
			fields = append(fields, fmt.Sprintf("%s: %#x", name, f.Uint()))
		default:
			fields = append(fields, fmt.Sprintf("%s: %d", name, f.Uint()))
		}
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

// readLiteral is what the compiler makes of a test case that was printed.
func readLiteral(text string) (moves, error) {
	expression, err := parser.ParseExprFrom(token.NewFileSet(), "", "[]testCase{\n"+text+"\n}", 0)
	if err != nil {
		return nil, err
	}
	list := expression.(*ast.CompositeLit).Elts
	steps, ok := list[0].(*ast.CompositeLit).Elts[4].(*ast.SelectorExpr)
	if !ok || len(list) != 1 || steps.Sel.Name != "steps" {
		return nil, errors.New("not one test case with the steps of moves")
	}
	var all moves
	for _, element := range steps.X.(*ast.CompositeLit).Elts {
		var m move
		if err := readFields(element.(*ast.CompositeLit), reflect.ValueOf(&m).Elem()); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

func readFields(literal *ast.CompositeLit, into reflect.Value) error {
	for _, element := range literal.Elts {
		pair := element.(*ast.KeyValueExpr)
		field := settable(into.FieldByName(pair.Key.(*ast.Ident).Name))
		switch value := pair.Value.(type) {
		case *ast.CompositeLit:
			if err := readFields(value, field); err != nil {
				return err
			}
		case *ast.Ident:
			field.SetBool(value.Name == "true")
		case *ast.BasicLit:
			if field.Kind() == reflect.String {
				s, err := strconv.Unquote(value.Value)
				if err != nil {
					return err
				}
				field.SetString(s)
				continue
			}
			n, err := strconv.ParseUint(value.Value, 0, field.Type().Bits())
			if err != nil {
				return err
			}
			field.SetUint(n)
		}
	}
	return nil
}

// What is printed of a sequence is the sequence.
func TestAPrintedCaseIsTheSequence(t *testing.T) {
	for _, h := range families {
		d := draw{Rand: rand.New(rand.NewPCG(*seed, 0)), six: h.six}
		for range 500 {
			all := d.sequence(length, []kind{opens, pause, closes})
			none := make([]verdict, len(all))
			text := all.literal("a sequence", "liberal", h, none, none)
			if read, err := readLiteral(text); err != nil || !reflect.DeepEqual(read, all) {
				t.Fatalf("%v: read back as %+v:\n%s", err, read, text)
			}
		}
	}
}
