# SPDX-License-Identifier: Apache-2.0
#
# Reads what a guest has sent: lines that begin with `nonce` are init's, the others what the tests printed under
# -test.v. Prints how each of the `suites` came out, and what a test has logged as "report: ...". Exit status 1: one
# failed, ran no test, or was not finished.

{ sub(/\r$/, "") }

$1 == nonce && $2 == "kernel" { print "Linux " $3 }

$1 == nonce && $2 == "begin" {
	suite = $3
	count = 0
	told = ""
	split("", result)
	split("", parent)
	split("", said)
	split("", last)
	test = ""
}

$1 == nonce && $2 == "end" { finish($3, $4, $5 / 100) }

$1 == nonce && $2 == "finished" { complete = 1 }

$1 == nonce { next }

$1 == "===" { test = $3; next }

$1 == "---" && $2 ~ /^(PASS|FAIL|SKIP):$/ {
	order[++count] = $3
	result[$3] = substr($2, 1, 4)
	for (name = $3; sub(/\/[^\/]*$/, "", name); )
		parent[name] = 1
	next
}

{
	if (sub(/^ *[^ ]*\.go:[0-9]+: report: /, ""))
		told = told "    " $0 "\n"
	said[test] = said[test] "      " $0 "\n"
	last[test] = $0
}

# Counts the tests that have none below them.
function finish(suite, status, seconds,    i, name, tests, skips) {
	tests["PASS"] = tests["FAIL"] = tests["SKIP"] = 0
	for (i = 1; i <= count; i++) {
		name = order[i]
		if (!(name in parent))
			tests[result[name]]++
		if (result[name] == "SKIP") {
			sub(/^ *[^ ]*\.go:[0-9]+: /, "", last[name])
			skips = skips sprintf("    skipped %s: %s\n", name, last[name])
		}
	}
	printf "  %-13s %4d passed, %d failed, %d skipped, %.0f s\n%s",
		suite, tests["PASS"], tests["FAIL"], tests["SKIP"], seconds, told skips
	if (status == 0 && tests["FAIL"] == 0 && tests["PASS"] > 0) {
		passed[suite] = 1
		return
	}
	if (tests["PASS"] + tests["FAIL"] == 0)
		print "    no test ran"
	printf "    exit status %d\n", status
	for (i = 1; i <= count; i++)
		if (result[order[i]] == "FAIL" && said[order[i]] != "")
			printf "    FAILED %s:\n%s", order[i], said[order[i]]
	if (result[test] != "FAIL") # a panic, or a test that would not end
		printf "    at the end, in %s:\n%s", test, said[test]
}

END {
	bad = !complete
	n = split(suites, wanted)
	for (i = 1; i <= n; i++)
		if (!(wanted[i] in passed)) {
			print "  " wanted[i] ": did not pass"
			bad = 1
		}
	if (!complete)
		printf "  the guest died %s\n%s", suite == "" ? "before the tests" : "in " suite ", in " test, said[test]
	exit bad
}
