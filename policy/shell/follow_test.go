// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"slices"
	"strings"
	"testing"
)

// record is a world that keeps the calls of one program, run. Of those that it
// does not know to be made, it writes a ? behind them.
type record struct {
	calls []string
	count int
}

func (r *record) Clone() World { return &record{slices.Clone(r.calls), r.count} }

func (r *record) Join(o World) bool {
	other := o.(*record)
	if slices.Equal(r.calls, other.calls) {
		return false
	}
	for i, c := range r.calls {
		if !slices.Contains(other.calls, c) && !strings.HasSuffix(c, "?") {
			r.calls[i] += "?"
		}
	}
	for _, c := range other.calls {
		if !slices.Contains(r.calls, c) && !slices.Contains(r.calls, c+"?") {
			r.calls = append(r.calls, strings.TrimSuffix(c, "?")+"?")
		}
	}
	r.count++
	return true
}

func (r *record) Doubt(Place) {
	r.count++
	r.calls = append(r.calls, "!")
}

func (r *record) Run(p Program) (Status, bool) {
	if p.Name != "run" {
		return 0, false
	}
	text := strings.Join(textsOf(p.Args), " ")
	for _, a := range p.Args {
		if !a.Known {
			text = "hidden"
		}
	}
	if text == "stdin" {
		text = p.Input.Text
	}
	r.count++
	r.calls = append(r.calls, text)
	if text == "fails" {
		return 1, true
	}
	return OK, true
}

func (r *record) Changes() int { return r.count }

func (r *record) Open() bool { return len(r.calls) == 0 }

type said struct{ lost, notes []string }

func (s *said) Lost(_ Place, why string) { s.lost = append(s.lost, why) }
func (s *said) Note(_ Place, why string) { s.notes = append(s.notes, why) }

// What a script runs, a call behind the other. A ? is behind one that it may not
// run, and ! is whatever.
func TestFollow(t *testing.T) {
	const sh = "#!/bin/sh\n"
	for script, want := range map[string]string{
		"run 1; run 2":                                                  "1 2",
		"A=1; B=$A$A; run $B \"$A 2\"":                                  "11_1_2",
		"A='1 2'; for i in $A; do run $i; done":                         "1 2",
		"A='1 2'; for i in \"$A\"; do run $i; done":                     "1_2",
		"for i in 1 2 3; do [ $i = 2 ] && continue; run $i; done":       "1 3",
		"for i in 1 2 3; do run $i; [ $i = 2 ] && break; done":          "1 2",
		"for i in 1 2; do for j in 3 4; do run $j; break 2; done; done": "3",
		"for ((i=1; i<3; i++)); do run $i; done":                        "1 2",
		"i=0; while [ $i -lt 2 ]; do i=$((i+1)); run $i; done":          "1 2",
		"i=0; until (( i == 2 )); do ((i++)); run $i; done":             "1 2",
		"while read a b; do run $b; done <<E\n1 2\n3 4 5\nE":            "2 4_5",
		"echo 1 2 | while read a b; do run $b; done; run \"<$a>\"":      "2 hidden",
		"a=0; echo 1 | while read a; do run $a; done; run $a":           "1 0",
		"while [ -e /x ]; do run 1; done; run 2":                        "1? 2",
		"for i in $(cat /x); do run 1; A=1; done; run 2; run \"$A\"":    "1? 2 hidden",
		"for i in $UNSET; do run \"$i\"; done":                          "hidden?",
		"if [ -e /x ]; then run 1; else run 2; fi; run 3":               "1? 2? 3",
		"if true; then run 1; else run 2; fi":                           "1",
		"if run fails; then run 1; else run 2; fi":                      "fails 2",
		"run fails || run 1; run fails && run 2; ! run fails && run 3":  "fails 1 fails fails 3",
		"[ -e /x ] && run 1; run 2":                                     "1? 2",
		"[ -e /x ] && exit; run 1":                                      "1",
		"run 1; [ -e /x ] && exit; run 2":                               "1 2?",
		"run 1; if [ -e /x ]; then exit; fi; run 2":                     "1 2?",
		"run 1; exit; run 2":                                            "1",
		"(exit); run 1":                                                 "1",
		"(A=1; run $A); run \"<$A>\"":                                   "1 hidden",
		"A=0; (A=1; run $A); run $A":                                    "1 0",
		"{ A=1; run $A; }; run $A":                                      "1 1",
		"f() { run $1 $# \"$@\"; }; f 1 2":                              "1_2_1_2",
		"f() { shift; run $1; }; f 1 2; set -- 3 4; run $2":             "2 4",
		"f() { for i; do run $i; done; }; f 1 2":                        "1 2",
		"f() { local A=1; run $A; }; A=2; f; run $A":                    "1 2",
		"A=1; f() { local A=2 B=$A; run $A $B; }; f; declare A=3 C=$A; export A=4 D=$A E=(\"$A\"); run $C $D $E": "2_1 1_3_3",
		"readonly N=1 M=\"-s $N\"; run $M; export C=${Y:=5} D=$Y; run $C $D":                                     "hidden 5_5",
		sh + "A=1; f() { local A=2 B=$A; run $B; }; f; export A=3 C=$A; run $C":                                  "1 1",
		"f() { A=1; }; A=2; f; run $A":                                  "1",
		"f() { return 1; run 1; }; f || run 2":                          "2",
		"f() { [ -e /x ] && return; run 1; }; f; run 2":                 "1? 2",
		"f() { echo 1; }; run $(f) `f`":                                 "1_1",
		"f() { run 1; }; A=$(f); run 2":                                 "1 2",
		"run() { command run -w \"$@\"; }; run 1":                       "-w_1",
		"[ -e /x ] && f() { run 1; }; f":                                "!",
		"run ${A:-1}; A=; run ${A:-2} ${A-3}; A=4; run ${A:-5} ${A:+6}": "1 2 4_6",
		"A=abcabc; run ${A#a} ${A##*b} ${A%c} ${A%%b*} ${#A} ${A/b/x} ${A//b/x} ${A:1:2} ${A: -2} ${A^^}": "bcabc_c_abcab_a_6_axcabc_axcaxc_bc_bc_ABCABC",
		"A=(1 2 3); run ${A[1]} ${#A[@]} \"${A[@]}\"; A+=(4); run ${A[-1]}":                               "2_3_1_2_3 4",
		"A=(1 2); A[1]=5; for i in \"${A[@]}\"; do run $i; done":                                          "1 5",
		"set -- a b; run \"$*\" ${@:2}":                                                                   "a_b_b",
		"IFS=,; A=1,2; run $A; run \"$A\"":                                                                "1_2 1,2",
		"IFS=, read a b <<< 1,2; run $b$a":                                                                "21",
		"run {1..3} a{b,c}":                                                                               "1_2_3_ab_ac",
		"A=2; run $((A*3+1)) $((A>1?5:6)) $[1+1]":                                                         "7_5_2",
		"let A=1+2; ((A++)); declare -i B=A+1; run $A":                                                    "4",
		"declare -i A=7; A=8; run $A; typeset B=1; run $B":                                                "8 1",
		"let \"A = 5\" 'B=A+1'; run $A $B; C=A+1; run $((C)); D=E=7; ((D)); run $E":                       "5_6 6 7",
		"A=1; let $X; run 1":                                                                              "1 !",
		"set -e; f() { local a=$(false); run 1; }; f; B=$(false); run 2":                                  "1",
		"while read a; do run $a; read b <<< 1; done <<< 1":                                               "1",
		"printf -v A %s-%d x 2; run $A":                                                                   "x-2",
		"mapfile -t A <<< $'1'; run ${A[0]}":                                                              "1",
		"A=B B=2; run ${!A}":                                                                              "2",
		"eval 'A=1; run $A'; run $A":                                                                      "1 1",
		"eval \"$X\"; run 1":                                                                              "1 !",
		". ./x; run 1":                                                                                    "1 !",
		"run 1; ./other; run 2":                                                                           "1 ! 2",
		"$X; run 1":                                                                                       "1 !",
		"case ab in a*) run 1;; *) run 2;; esac":                                                          "1",
		"case $X in a) run 1;; *) run 2;; esac":                                                           "1? 2?",
		"case $X in a) run 1;; esac; run 2":                                                               "1? 2",
		"case $1 in start) run 1;; stop) run 2;; esac":                                                    "1",
		"run 0; case $1 in start) run 1;; stop) run 2;; esac":                                             "0 1? 2?",
		"sudo run 1; nice -n 5 run 2; env A=1 run 3; command run 4; nohup run 5; \\run 6; exec run 7; run 8": "1 2 3 4 5 6 7",
		"timeout 5 run 1; flock /x run 2; setsid run 3":                                                      "1? 2? 3?",
		"bash -c 'run $1' x 1; sh -c 'exit; run 2'":                                                          "1?",
		"export A=1; B=2; bash -c 'run $A$B'":                                                                "hidden?",
		"echo 1 | xargs run a; xargs -I{} run {} < x":                                                        "hidden? hidden?",
		"run stdin <<E\nA $((1+1))\nE":                                                                       "A_2_",
		"run stdin <<'E'\n$A\nE":                                                                             "$A_",
		"run 1 < missing":                                                                                    "1?",
		"run 1 > log; run 2 2>> log; run 3 >&2; run 4 >& /x; run 5 >&7; > log; run 6":                        "1? 2? 3 4? 5? 6",
		"echo 1 > /proc/x && run 1; echo 1 > /proc/x || run 2; echo 1 > /dev/stderr && run 3":                "1? 2? 3",
		"{ run 1; } > log; (run 2) > log; f() { run 3; } > log; f; if :; then run 4; fi > log; run 5":        "1? 2? 3? 4? 5",
		"run 0; set -e; echo 1 > /proc/x; run 1":                                                             "0 1?",
		"run 0; set -e; { :; } > log; run 1":                                                                 "0 1?",
		sh + "run 0; exec > log; run 1":                                                                      "0 1?",
		"run 0; set -e; exec > >(cat) 2>&1; run 1":                                                           "0 1",
		"run 0; : > log; run 1":                                                                              "0 1",
		sh + "run 0; : > log; run 1":                                                                         "0 1?",
		sh + "run 0; echo > log; run 1":                                                                      "0 1",
		"for f in /proc/*; do echo 1 > $f; done; run 1":                                                      "1",
		"run stdin <<E # \\\nx # \\\ny\nE\nrun 2":                                                            "x_#_y_ 2",
		"true # a \\\nrun 1\nrun 2":                                                                          "1 2",
		"run 1 # \\\nrun 2 # \\\n# \\\n#\\\nrun 3":                                                           "1 2 3",
		"if true; then # \\\nrun 1; else # \\\nrun 2; fi\nfor i in 3 4; do # \\\nrun $i\ndone\nrun 5":        "1 3 4 5",
		"case a in # \\\na) # \\\nrun 1 ;; # \\\n# \\\nesac # \\\nf() { # \\\nrun 2; } # \\\nf # \\\nrun 3":  "1 2 3",
		"A=( # \\\n1 # \\\n2 ); run $(echo ${A[0]} # \\\necho ${A[1]}\n)":                                    "1_2",
		"true && # \\\nrun 1; true | # \\\nrun 2; ( # \\\nrun 3 # \\\n) # \\\nwhile false; do # \\\nrun 4; done # \\\nrun 5":  "1 2 3 5",
		"eval 'true # \\\nrun 1'; run 2 '# \\\n' a#\\\nb":                                                                     "1 2_#_\\__a#b",
		"run stdin <<E # \\\n# \\\n1\nE\nrun 2":                                                                               "#_1_ 2",
		"A=`true # \\\nrun 1`; run 2 # \\":                                                                                    "1 2",
		"[[ a = a && # \\\nb = b ]] && run 1; : \"$(true # \\\nrun 2)\"":                                                      "1 2",
		"for i in {1..100000000}; do run 1; done; run {1..9}{0..9}{0..9}{0..9}{0..9} {5..5} {a..c} {-9223372036854775807..9}": "1? hidden",
		"sed -i 's/a/b/g; /x/d' f; sed -n '$p' f; sed -n -e '/a/,/b/{s#x#y#p;q}' -e 1,3p f; sed '/^#/d;s/ //' \"/etc/$X\"; sed 2q; sed 's/;e/e/'; sed 's/.*inet addr:\\([^ ]*\\).*/\\1/' x; run 1": "1",
		"sed '1e iptables -F'": "!", "sed 's/a/b/e' f": "!", "sed 's/a/b/ge' f": "!", "sed -n '/x/{p;e x\n}'": "!", "sed -f x": "!", "sed -e p \"$X\"": "!", "sed p /etc/$X": "!", "sed p /etc/*.conf; run 1": "1", "sed \"s/a/$X/\" f": "!",
		"sed 's/[^/]*$//; s/[]/[:space:]]/ /g'; awk '/a|b/ { print $1 }'; run 1": "1", "sed 's/[/]/;1e x/'; run 1": "1", "sed 's/[\\]/;1e x/'": "!",
		"sed 1p -e 1e": "!", "sed --expr=1e": "!", "sed -s1e": "!", "sed 1p $X": "!", "sed y/a/b/\ne": "!",
		"tar czf /x.tgz /etc; tar -x -f a --exclude=b -C /; run 1": "1",
		"tar cf x --checkpoint=1 --checkpoint-action=exec=x y":     "!", "tar -I x -xf y": "!", "tar xf $X": "!",
		"awk '{print|\"sh\"}'": "!", "awk \"$X\"": "!", "awk -F: -v a=\"$X\" '$1 || $2 { print a }' /etc/passwd; awk -F'|' '{print}' $X; run 1": "1", "gawk -e x": "!",
		"find \"$X\" -name \"$Y\" -delete; run 1": "1", "find . \"$X\" y \\;": "!",
		"sort -u f | sort -k 2 -n; run 1": "1", "sort --compress-prog=x": "!",
		"run 1 > /dev/null 2>&1":          "1",
		"trap 'run 1' EXIT; run 2":        "2 1?",
		"trap 'run 1' INT; run 2":         "2",
		"alias r=run; r 1":                "1?",
		"run 1 & run 2":                   "2 !",
		"sleep 1 & run 2; wait":           "2",
		"echo x | cat | run 1":            "1",
		"run 1 | run 2":                   "1 2 !",
		"set -e; run 0; false; run 1":     "0",
		"set -e; run 0; grep x /y; run 1": "0 1?",
		"set -e; run 0; grep x /y || true; if false; then :; fi; run 1": "0 1",
		"set -e; run 0; f() { false; run 1; }; f || run 2; f; run 3":    "0 1",
		"set -u; run 0; unset A; run $A":                                "0",
		"readonly A=1; run 0; A=2; run 1":                               "0 1 !",
		"coproc x; run 1":                                               "1 !",
		"select i in 1 2; do run $i; done":                              "!",
		"shopt -s extglob; run 1":                                       "1 !",
		"run *; run '*' \"a*\"":                                         "hidden *_a*",
		"set -f; run *":                                                 "*",
		"[[ abc == a* && -n x ]] && run 1; [[ $X == 1 ]] && run 2; [[ 2 -lt 10 ]] && run 3":           "1 2? 3",
		"[ 1 -eq 1 -a x = y ] || run 1; test -z '' && run 2; [ ! x = x ] || run 3":                    "1 2 3",
		"command -v iptables || exit; [ -x /sbin/iptables ] || exit; [ $(id -u) = 0 ] || exit; run 1": "1",
		"run 1\nfi": "1 !",
		"ip netns exec x run 1; ssh x run 2; run 3":                            "3",
		"awk 'BEGIN { system(\"x\") }'; find . -exec run {} \\;":               "! !",
		"awk '{ print $1 }' x; run $(awk '{ print }' x)":                       "hidden",
		sh + "run 1; [[ a = a ]]; run 2":                                       "1 2 !",
		sh + "run {1,2}":                                                       "hidden",
		sh + "A=${B/x/y}; run 1":                                               "1 !",
		sh + "run 0; run 1 &> /dev/null":                                       "0 !",
		sh + "source ./x; run 1":                                               "1 !",
		sh + "f() { local A; A=1; run $A; }; f":                                "1",
		"i=0; while :; do run 1; i=$((i+1)); [ $i = 2 ] && break; done; run 2": "1 1 2",
		"f() { f; }; run 1; f; run 2":                                          "1 2 !",
		"while true; do :; done; run 1":                                        "1",
	} {
		world := &record{}
		var s said
		got := Follow("x", script, world, &s).(*record)
		for i, c := range got.calls {
			got.calls[i] = strings.NewReplacer(" ", "_", "\n", "_").Replace(c)
		}
		text := strings.Join(got.calls, " ")
		if text != want {
			t.Errorf("%q runs %q, want %q", script, text, want)
		}
		if strings.ContainsAny(text, "!?") && len(s.lost) == 0 && !strings.HasPrefix(script, "case $1") {
			t.Errorf("%q says nothing about %q", script, text)
		}
	}
}
