// SPDX-License-Identifier: Apache-2.0

// Command iptables stands for iptables in scripts that tests draw. By the name
// that it is called with it is one of iptables, ip6tables, their -restore and
// their -save. The rules are in files of the directory FAKE_RULES.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/portcullis-firewall/portcullis/tests/importscripts/fake"
)

func main() {
	status, err := run(filepath.Base(os.Args[0]), os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 4
	}
	os.Exit(status)
}

func run(name string, args []string) (int, error) {
	kind := "nft"
	if strings.Contains(name, "legacy") {
		kind = "legacy"
	}
	six := strings.HasPrefix(name, "ip6")
	path := filepath.Join(os.Getenv("FAKE_RULES"), kind+map[bool]string{true: "6", false: "4"}[six])
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return 0, err
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return 0, err
	}
	rules, err := fake.Parse(text, six)
	if err != nil {
		return 0, err
	}
	status := 0
	switch {
	case strings.HasSuffix(name, "-save"):
		fmt.Println("*filter")
		return 0, nil
	case strings.HasSuffix(name, "-restore"):
		in, err := io.ReadAll(os.Stdin)
		if err != nil {
			return 0, err
		}
		keep := slices.Contains(args, "-n") || slices.Contains(args, "--noflush")
		status = rules.Restore(string(in), keep)
	default:
		status = rules.Run(args)
	}
	if err := f.Truncate(0); err != nil {
		return 0, err
	}
	_, err = f.WriteAt(rules.Text(), 0)
	return status, err
}
