// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
)

// summary is what the tests of this package have compared, for make to print: go test keeps what passes to itself.
var summary struct {
	sync.Mutex
	sources []string // of packets, in the order in which they came
	tallies map[where]*tally
	faults  []string
}

type where struct {
	source string // "": all of them
	mode   loader.Mode
	family string
}

// report adds to the summary what one source of packets gave in a mode and family.
func report(source string, mode loader.Mode, h hosts, result *tally) {
	summary.Lock()
	defer summary.Unlock()
	if summary.tallies == nil {
		summary.tallies = make(map[where]*tally)
	}
	if !slices.Contains(summary.sources, source) {
		summary.sources = append(summary.sources, source)
	}
	for _, source := range []string{source, ""} {
		at := where{source, mode, hosts{six: h.six}.String()} // routed or not
		if summary.tallies[at] == nil {
			summary.tallies[at] = &tally{}
		}
		summary.tallies[at].add(result)
	}
}

// reportFaults adds a line about faults that were made on purpose.
func reportFaults(format string, args ...any) {
	summary.Lock()
	defer summary.Unlock()
	summary.faults = append(summary.faults, fmt.Sprintf(format, args...))
}

// agreement is the summary as people read it, or nothing when nothing was compared.
func agreement() []byte {
	if summary.tallies == nil {
		return nil
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "Netfilter and Portcullis on Linux %s, packets that both decide alike:\n\n", release())
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "mode\tfamily\tcases\t%s\tlet in\tdocumented differences\tundocumented\t\n",
		strings.Join(summary.sources, "\t"))
	var all tally
	for _, mode := range modes {
		for _, h := range families {
			sum := summary.tallies[where{"", mode, h.String()}]
			if sum == nil {
				continue
			}
			all.add(sum)
			fmt.Fprintf(table, "%s\t%s\t%d\t", mode, h, sum.cases)
			for _, source := range summary.sources {
				if one := summary.tallies[where{source, mode, h.String()}]; one != nil {
					fmt.Fprintf(table, "%d", one.packets)
				}
				fmt.Fprint(table, "\t")
			}
			fmt.Fprintf(table, "%d\t%d\t%d\t\n", sum.letIn, sum.differences, len(sum.wrong))
		}
	}
	table.Flush()
	fmt.Fprintf(&text, "\n%d of the %d differences that docs/netfilter-differences.md lists were met (%d cannot show in a verdict); %d undocumented; seed %d.\n",
		len(all.met), len(allDifferent)+len(notPlayed), len(notPlayed), len(all.wrong), *seed)
	for _, line := range summary.faults {
		fmt.Fprintln(&text, line)
	}
	return text.Bytes()
}

func release() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "?"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// TestMain appends the summary to the file of the environment, to which tests/load writes as well.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if path, text := os.Getenv("PORTCULLIS_AGREEMENT"), agreement(); path != "" && text != nil {
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = appendTo(path, text)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func appendTo(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append([]byte("\n"), text...))
	return errors.Join(err, f.Close())
}
