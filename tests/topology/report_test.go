// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/portcullis-firewall/portcullis/loader"
)

// result is how the frames of a mode came out.
type result struct{ shapes, alike, documented, undocumented int }

var results = make(map[loader.Mode]*result)

func count(mode loader.Mode, add func(*result)) {
	if results[mode] == nil {
		results[mode] = &result{}
	}
	add(results[mode])
}

// summary is the report, a line for each mode.
func summary() []string {
	var text bytes.Buffer
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "mode\ttopologies\tframes decided alike\tdocumented differences\tundocumented\t\n")
	for _, mode := range []loader.Mode{loader.ModeNative, loader.ModeGeneric, loader.ModeTC} {
		if r := results[mode]; r != nil {
			fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t\n", mode, r.shapes, r.alike, r.documented, r.undocumented)
		}
	}
	table.Flush()
	if len(results) == 0 {
		return nil
	}
	return strings.Split(strings.TrimRight(text.String(), "\n"), "\n")
}

// TestMain writes the report where the environment says, since go test keeps what passes to itself.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if path, lines := os.Getenv("PORTCULLIS_TOPOLOGY"), summary(); path != "" && lines != nil {
		text := "Frames to every MAC address of every topology, beside netfilter:\n\n" + strings.Join(lines, "\n") + "\n"
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
