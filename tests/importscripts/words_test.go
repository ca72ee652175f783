// SPDX-License-Identifier: Apache-2.0

package importscripts

// variables are those that hold ports or the like.
func (d *drawer) variable() string { return d.pick("P", "Q", "N", "PORT") }

func (d *drawer) port() string { return d.pick("22", "80", "443", "3306", "8080", "53") }

func (d *drawer) source() string {
	return d.pick("192.0.2.7", "198.51.100.0/24", "10.0.0.0/8", "192.0.2.7,198.51.100.9")
}

// program is how iptables is called.
func (d *drawer) program() string {
	if len(d.ports) > 0 && d.IntN(2) == 0 {
		return "$IPT"
	}
	if d.plain {
		return d.pick("iptables", "iptables", "iptables", "ip6tables")
	}
	return d.pick("iptables", "iptables", "iptables", "iptables", "iptables", "ip6tables", "command iptables", "nice iptables", "env iptables",
		"iptables -w", "iptables -w 5", `\iptables`, "builtin iptables", "timeout 9 iptables", "nohup iptables", "/sbin/iptables", "iptables-nft")
}

// value is a word that holds a port.
func (d *drawer) value() string {
	v := d.variable()
	if d.plain {
		return d.pick(d.port(), d.port(), "$"+v, "${"+v+"}", `"$`+v+`"`)
	}
	words := []string{d.port(), d.port(), "$" + v, "${" + v + "}", `"$` + v + `"`, "$" + v, "${" + v + ":-443}", "${UNSET:-80}", "$((" + d.port() + "+1))",
		"$((N+1))", "$(echo " + d.port() + ")", "`echo $" + v + "`", "${" + v + "%0}", "${" + v + "#8}", "${" + v + "-22}", "$1", "${1:-22}", "$#",
		"${" + v + "+8080}", "$?", "$(( $" + v + " * 2 ))", "'" + d.port() + "'", `"` + d.port() + `"`, "${" + v + "=53}", "$LIST", "${LIST%% *}", "${LIST##* }",
		"${" + v + ":?}", "$(printf %s 22)", "$(f1 443)", "$( (echo 22) )", "${#" + v + "}", "$(cat missing 2>/dev/null)", "2$((1+1))"}
	if !d.posix {
		words = append(words, "${A[0]}", "${A[1]}", "${A[@]}", "${A[*]}", "${#A[@]}", "${"+v+"/0/1}", "${"+v+"//8/2}", "${"+v+":0:2}", "${"+v+": -2}", "${"+v+":1}",
			"$[20+2]", "${!R}", "${"+v+"^^}", "${A[-1]}", "${A[N]}", "${@:1:1}", "${!A[@]}", "${M[a]}", "$'22'", "{22,80}", "22{0,1}", "${A[$N]}", "$((N++))", "${"+v+"/%0/9}")
	}
	return words[d.IntN(len(words))]
}

func (d *drawer) match() string {
	s := ""
	if d.IntN(3) == 0 {
		s += d.pick(" -s ", " -s ", " --source ", " ! -s ")
		switch {
		case d.plain || d.IntN(3) > 0:
			s += d.source()
		default:
			s += d.pick("$BAD", `"$BAD"`, "${BAD}", "$2", `"${NETS[1]}"`, "$UNKNOWN")
		}
	}
	if d.IntN(8) > 0 {
		s += " -p " + d.pick("tcp", "tcp", "tcp", "udp")
		switch d.IntN(9) {
		case 0:
			s += " -m multiport --dports 22,80,443"
		case 1:
			if !d.plain {
				s += d.pick(" --dport 22,80", " --dports 22,80", " -m multiport --dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,22", " --dport 80:22", " -m state", " -m udp --dport 53", " -m comment --comment a b --dport 22", " --dport 22 extra", " -m multiport", " --sport 20 --dport 22")
			}
		case 2:
		default:
			s += d.pick(" --dport ", " --dport ", " --destination-port ") + d.value()
		}
	}
	if d.IntN(8) == 0 {
		s += d.pick(" -m state --state NEW", " -m conntrack --ctstate NEW,ESTABLISHED", " -m comment --comment 'a -j DROP b'")
	}
	return s
}

func (d *drawer) target() string {
	if d.plain {
		return d.pick(" -j ACCEPT", " -j ACCEPT", " -j ACCEPT", " -j DROP", " -j REJECT")
	}
	return d.pick(" -j ACCEPT", " -j ACCEPT", " -j ACCEPT", " -j ACCEPT", " -j DROP", " -j DROP", " -j REJECT", " --jump ACCEPT", " -jDROP", " --jump=DROP", " -jACCEPT", " --jump=ACCEPT", " -j WEB",
		" -j RETURN", " -j $T", ` -j "$T"`, " -j accept", " -j MISSING", " -g WEB", " $T", "", " -j ACCEPT $EMPTY", " -j ACCEPT -j DROP", " --jum DROP")
}

func (d *drawer) chain() string {
	if d.plain {
		return d.pick("INPUT", "INPUT", "INPUT", "WEB")
	}
	return d.pick("INPUT", "INPUT", "INPUT", "INPUT", "INPUT", "WEB", "WEB", "OLD", "$CHAIN", "FORWARD")
}

// words is what a loop goes over.
func (d *drawer) words() string {
	if d.plain {
		return d.pick("22 80 443", "80 443", "$LIST", d.port()+" "+d.port())
	}
	list := []string{"22 80 443", "$LIST", `"$LIST"`, `"$@"`, "$@", "$*", d.value() + " " + d.value(), "$(echo 22 80)", "$(cat missing 2>/dev/null)", "$(seq 80 82)", "$(cat /etc/hostname) 22", "`echo 22 443`", "$LIST 8080", "*", "'22 80' 53"}
	if !d.posix {
		list = append(list, `"${A[@]}"`, "${A[*]}", "{80..82}", "{22,443}", `"${@:2}"`, `"${!A[@]}"`)
	}
	return list[d.IntN(len(list))]
}

// condition is a command that is asked for its status.
func (d *drawer) condition() string {
	v := "$" + d.variable()
	if d.plain {
		return d.pick(`[ "`+v+`" = 22 ]`, `[ -n "`+v+`" ]`, "command -v iptables >/dev/null 2>&1", "true", `[ "`+v+`" != 443 ]`, `[ `+v+` -gt 100 ]`)
	}
	list := []string{`[ "` + v + `" = 22 ]`, `[ -n "` + v + `" ]`, `[ -z "` + v + `" ]`, "[ -f /etc/hostname ]", "[ -e missing ]", "[ " + v + " -gt 100 ]", "[ " + v + " = 80 ]",
		"test -d /etc", "true", "false", "! false", "grep -q root /etc/passwd", "command -v iptables >/dev/null", "iptables -L WEB >/dev/null 2>&1", "iptables -nL OLD >/dev/null 2>&1",
		"iptables -C INPUT -p tcp --dport 22 -j ACCEPT 2>/dev/null", "[ $# -gt 0 ]", `[ "$1" = 22 ]`, "[ " + v + " -eq 22 -o 1 = 1 ]", "[ -n x -a " + v + " = 80 ]", "[ " + v + " ]", "[ ! -e missing ]",
		"[ -x /sbin/iptables ]", "case " + v + " in 2*) true;; *) false;; esac", "( exit 3 )", "f1 22 >/dev/null", "[ $(( N % 2 )) -eq 0 ]", `[ "$UNKNOWN" = yes ]`, "iptables -N TRY", "iptables -D INPUT -p tcp --dport 80 -j ACCEPT"}
	if !d.posix {
		list = append(list, "[[ "+v+" == 8* ]]", "[[ "+v+" =~ ^8 ]]", "(( N > 1 ))", "((N))", "[[ -z "+v+" || "+v+" != 22 ]]", "[[ -n "+v+" && ! -e missing ]]", "[ "+v+" == 22 ]", "[[ "+v+" -lt 100 ]]", "[[ $RANDOM -gt 16000 ]]", "[ $UID -eq 0 ]")
	}
	return list[d.IntN(len(list))]
}

// assignment sets something.
func (d *drawer) assignment() string {
	v := d.variable()
	if d.plain {
		return d.pick(v+"="+d.port(), v+"="+d.port(), `LIST="22 80"`, v+`="`+d.port()+`"`, v+"=${"+v+":-22}")
	}
	list := []string{v + "=" + d.port(), v + "=" + d.value(), v + "=" + d.value(), `LIST="22 443"`, "LIST='80 8080 53'", `LIST="$LIST 3306"`, "BAD=" + d.pick("192.0.2.7", "198.51.100.0/24", "$(cat missing 2>/dev/null)"),
		"N=" + d.pick("1", "2", "3", "0"), v + "=$((" + v + "+1))", "T=" + d.pick("ACCEPT", "DROP", "$(echo DROP)", `"-j DROP"`), "CHAIN=" + d.pick("INPUT", "WEB"), "unset " + v, "export " + v + "=" + d.port(), "readonly RO=" + d.port(),
		"set -- 22 80", `set -- "$@" 443`, "shift", "IFS=,", "IFS=' '", "unset IFS", "LIST=22,80", v + "=" + d.port() + " " + d.pick("true", "iptables -L >/dev/null", "f1 80 >/dev/null"), ": ${" + v + ":=8080}", "eval " + v + "=" + d.port(),
		"eval \"" + v + "=\\$" + d.variable() + "\"", "EMPTY=", v + "=$(f1 53)", ". ./conf.sh", "[ -f conf.sh ] && . ./conf.sh", "set -e", "set +e", "set +u", "N=$?", "read " + v + " </dev/null", "RO=22", "alias fw=iptables", "trap - EXIT", v + "=\"$" + v + "0\""}
	if !d.posix {
		list = append(list, "(("+v+"+=1))", "let "+v+"+=58", "printf -v "+v+" %s "+d.port(), "declare -i N=2+1", "A=(22 80 443)", "A+=(53)", "A[1]=8080", "R="+v, "read "+v+" <<< "+d.port(), "read "+v+" N <<< '443 2'", "read -ra A <<< '80 53'",
			"mapfile -t A <<< 22", v+"+=0", "declare "+v+"="+d.port(), "local "+v+"=80", "typeset -r "+v, "shopt -s expand_aliases", "NETS=(10.0.0.0/8 192.0.2.7)", "IFS=, read "+v+" N <<< 22,1", "declare -A M=([a]=22)", "declare -n X=P; X=80",
			"source conf.sh", "((N++))", "unset 'A[0]'", "read -r "+v+" < <(echo 80)", "mapfile -t A < <(printf '%s\\n' 22 53)", v+"=$(<conf.sh)", "declare -u "+v, "shopt -s lastpipe", "set -o pipefail", "local -a A", "(("+v+" = N > 1 ? 22 : 80))")
	}
	return list[d.IntN(len(list))]
}
