// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// foreign are words of libraries, which mean nothing to who wrote the file.
var foreign = regexp.MustCompile(`strconv|yaml:|netip\.|ParseAddr|ParsePrefix|ParseInt|ParseUint|Atoi|time:|invalid syntax|0x[0-9a-f]|%!|<nil>|runtime error`)

// Most bytes of one error, however long what it is about.
const longest = 1000

// checkErrorText reports what no error of a file or a rule may be like.
func checkErrorText(t *testing.T, input string, err error) {
	t.Helper()
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range list.Unwrap() {
			checkErrorText(t, input, one)
		}
		return
	}
	text := err.Error()
	input = input[:min(len(input), 200)]
	if word := foreign.FindString(text); word != "" && !strings.Contains(input, word) {
		t.Errorf("%q: the error says %q: %s", input, word, text)
	}
	if len(text) > longest {
		t.Errorf("%q: the error has %d bytes: %.200s...", input, len(text), text)
	}
	for _, r := range text {
		if r < ' ' || r == 0x7f {
			t.Errorf("%q: the error holds a control character: %q", input, text)
		}
	}
}

// Each place of a file that takes a value gets values of each bad kind: the
// error names the line, speaks plainly, and is short.
func TestErrorsAreForPeople(t *testing.T) {
	long := strings.Repeat("9", 3000)
	sources := strings.TrimSuffix(strings.Repeat("192.0.2.1,", 400), ",")
	var values, rules []string
	for _, v := range []string{
		"", "~", "x", "1", "-1", "1.5", "99999999999999999999", "0x10", "1e3", long, "a" + long, "[]", "[x]", "[~]", "[[]]", "{}", "{a: b}", "{" + "a: {", "a: b", "\"", "'", "\"\\e[31m\"",
		"\"\\x00\"", "\"\\q\"", "*a", "&a x", "!!int x", "!" + long + " x", "|", ">", "@x", "`x`", "%x", "- x", "? x", "x: y: z", "\t", "\xff", "\u2028", "é", "\"é\\e\"", "null", "yes", "[" + long + "]", "[" + long + ", " + long + "]",
		"[\"" + long + " x\"]", "30", "30x", "1d1", "-5s", "1" + long + "d", "0" + strings.Repeat("0", 3000) + "30", strings.Repeat("[", 200), strings.Repeat("{a: ", 200),
	} {
		values = append(values, v, v+"\n")
	}
	for _, what := range []string{"http", "0" + long, long, long + "-1", "1-" + long, "1:2", long + "/tcp", "0" + strings.Repeat("0", 3000) + "80/tcp", "80/" + long, "tcp/80", "tcp/" + long, "x/tcp", long + "x", "80-90-100/tcp", "80,90/tcp", "80/tcp," + long} {
		for _, from := range []string{"", " from", " from x", " from " + long, " from 1.2.3", " from 1.2.3.4/33", " from 1.2.3.4/" + long, " from ::/129", " from 1.2.3.4/24", " from 1.2.3.4/255.255.255.0",
			" from 1.2.3.4/255.0.255.0", " from fe80::1%eth0", " from fe80::1%" + long, " from fe80::1%eth0/" + long, " from ::ffff:1.2.3.4/" + long, " from 010.0.0.1", " from 1.2.3.4,," + long, " from " + sources, " from " + sources + " x", " frm " + long,
			" from " + sources + ",192.0.2.1/24"} {
			rule := what + from
			rules = append(rules, "['"+rule+"']\n", "[http, '"+rule+"', '"+rule+"']\n", "\n  - "+rule+"\n", "\n  - '"+rule+"'")
			_, err := ParseRule(rule)
			if err != nil {
				checkErrorText(t, rule, err)
			}
			if _, err := ParseRules(strings.Fields("http " + rule)); err != nil {
				checkErrorText(t, rule, err)
			}
		}
	}
	places := []string{"%s", "x%s: 1\n", "%s: %[1]s\n", "input: drop\n%s"}
	for _, k := range Keys() {
		places = append(places, k.Name+": %s", k.Name+":\n  %s\n")
		for _, inner := range k.Keys[:min(len(k.Keys), 2)] {
			places = append(places, k.Name+": {"+inner.Name+": %s}\n", k.Name+":\n  "+inner.Name+": %s\n")
		}
		places = append(places, k.Name+": {x%s: 1}\n", k.Name+": {%s}\n")
	}
	for _, place := range places {
		inPlace := values
		if place == "open: %s" {
			inPlace = slices.Concat(values, rules)
		}
		for _, v := range inPlace {
			text := fmt.Sprintf(place, v)
			_, err := Parse("f", []byte(text))
			if err == nil {
				continue
			}
			checkErrorText(t, text, err)
			for line := range strings.Lines(err.Error()) {
				if !regexp.MustCompile(`^f:[0-9]+:[0-9]+: `).MatchString(line) {
					t.Errorf("%.200q: the error names no line: %s", text, line)
				}
			}
			if t.Failed() {
				return
			}
		}
	}
}

// A rule of any length is read, and what is said of it is short.
func TestLongRules(t *testing.T) {
	var sources []string
	for i := range 5000 {
		sources = append(sources, fmt.Sprintf("10.%d.%d.1", i>>8, i&255))
	}
	text := "22/tcp from " + strings.Join(sources, ",")
	file := []byte("open:\n  - http\n  - " + text + "\n")
	p, err := Parse("f", file)
	if err != nil || len(p.Open) != 2 || len(p.Open[1].From) != 5000 || p.Open[1].String() != text {
		t.Fatalf("got %v", err)
	}
	rule := p.Open[1]
	shorter := mustRule(t, "22/tcp from "+strings.Join(sources[1:], ","))
	for name, err := range map[string]error{
		"duplicate":  errorOf(Parse("f", append(bytes.Clone(file), "  - "+text+"\n"...))),
		"not open":   errorOf(RemoveRule("f", []byte("open: [http]\n"), rule)),
		"covered":    errorOf(RemoveRule("f", file, shorter)),
		"covered by": errorOf(RemoveRule("f", []byte("open: [ssh]\n"), rule)),
		"dash":       errorOf(RemoveRule("f", []byte("open:\n  - http\n  - # c\n    "+text+"\n"), rule)),
		"hand made":  errorOf(InsertRule("f", file, Rule{Ports: []PortRange{{TCP, 80, 80}, {UDP, 82, 82}}, From: rule.From})),
		"number":     errorOf(Compile([]NumberedRule{{0, rule}}, nil, nil)),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		checkErrorText(t, string(file), err)
		if !strings.Contains(err.Error(), `"`) {
			t.Errorf("%s: nothing is quoted: %v", name, err)
		}
	}
	if _, err := InsertRule("f", []byte("open: []\n"), rule); err != nil {
		t.Error(err)
	}
	if out, err := RemoveRule("f", file, rule); err != nil || string(out) != "open:\n  - http\n" {
		t.Errorf("%q, %v", out, err)
	}
	var ruleError *RuleError
	if _, err := ParseRule(text + ",x"); !errors.As(err, &ruleError) || ruleError.Token != "x" {
		t.Errorf("got %v", err)
	}
}

func errorOf[T any](_ T, err error) error { return err }
