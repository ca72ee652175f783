// SPDX-License-Identifier: Apache-2.0

// Package host reads what the kernel says of this host: sockets and who
// holds them, the session of the user, routes, interfaces and how they stand
// on one another. It changes nothing.
package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Files is the file system of this host.
var Files = os.DirFS("/")

// longestRead is more than any sysctl holds but lists of ports.
const longestRead = 16 << 10

// ReadFile returns the contents of a file, which may be one of procfs or sysfs. These claim to be empty, and a sysctl
// answers only the first read: [fs.ReadFile], which trusts the size, may get a single byte of it.
func ReadFile(files fs.FS, name string) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text := make([]byte, longestRead)
	n, err := f.Read(text)
	switch {
	case errors.Is(err, io.EOF):
		return text[:n], nil
	case err != nil:
		return nil, err
	}
	rest, err := io.ReadAll(f) // a file may come in pieces
	return append(text[:n], rest...), err
}

// Sysctl returns the value of a sysctl, whose name is written as in net/ipv4/ip_forward. Where files is nil, it is asked
// of this host.
func Sysctl(files fs.FS, name string) (string, error) {
	if files == nil {
		files = Files
	}
	text, err := ReadFile(files, "proc/sys/"+name)
	return strings.TrimSpace(string(text)), err
}

// SysctlNumber returns the value of a sysctl that is a number.
func SysctlNumber(files fs.FS, name string) (int, error) {
	text, err := Sysctl(files, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("sysctl %s: %q is not a number", name, text)
	}
	return n, nil
}
