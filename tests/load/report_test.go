// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// lines are what the rows have given, for make to print: go test keeps what passes to itself.
var lines []string

// report adds a row to the table.
func report(r row, size scale, of map[string]outcome) {
	measure := of[netfilter]
	line := fmt.Sprintf("%s\t%d\t%d\t%d\t", r.name, size.table, measure.sent, measure.lost)
	entries := fmt.Sprintf("%d\t", measure.entries)
	for _, mode := range modes {
		line += fmt.Sprintf("%d\t", of[string(mode)].lost)
		entries += fmt.Sprintf("%d\t", of[string(mode)].entries)
	}
	lines = append(lines, line+entries+r.what)
}

// TestMain appends the table to the file of the environment, to which tests/differential writes as well.
func TestMain(m *testing.M) {
	flag.Parse()
	// Both ends of thousands of connections are in this process.
	limit := unix.Rlimit{}
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	if err == nil && limit.Cur < 1<<17 {
		limit.Cur, limit.Max = 1<<17, max(limit.Max, 1<<17)
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "raise the limit of open files:", err)
	}
	code := m.Run()
	if err := save(os.Getenv("PORTCULLIS_AGREEMENT")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func save(path string) error {
	if len(lines) == 0 {
		return nil
	}
	var text bytes.Buffer
	fmt.Fprintln(&text, "\nThe same load on tables of the same size. Lost, and entries at its end, of netfilter and Portcullis by mode:")
	fmt.Fprintln(&text)
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	heading := "load\ttable\tsent\tnetfilter\t"
	for _, mode := range modes {
		heading += string(mode) + "\t"
	}
	heading += "entries\t"
	for _, mode := range modes {
		heading += string(mode) + "\t"
	}
	fmt.Fprintln(table, heading+"what is lost")
	for _, line := range lines {
		fmt.Fprintln(table, line)
	}
	table.Flush()
	if path == "" {
		_, err := os.Stdout.Write(text.Bytes())
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(text.Bytes())
	if closed := file.Close(); err == nil {
		err = closed
	}
	return err
}
