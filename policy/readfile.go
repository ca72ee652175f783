// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"
)

// The most that a policy file may hold. With every rule and source that a
// filter has room for it is smaller than that.
const (
	MaxFileSize  = 64 << 20 // bytes
	MaxFileLines = 1 << 18
)

// ReadFile returns the text of the policy file at path. It refuses what is no
// regular file, which may have no end or be waited for, and what is too large.
func ReadFile(path string) ([]byte, error) {
	data, err := readRegular(path)
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(data, []byte("\n")); n > MaxFileLines {
		return nil, fmt.Errorf("%s has %d lines, and %d is the most: join ports to ranges, or sources to lists", path, n, MaxFileLines)
	}
	return data, nil
}

// ReadListFile returns the text of the file of a list, as ReadFile does.
func ReadListFile(path string) ([]byte, error) { return readRegular(path) }

func readRegular(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: name one that is", path)
	}
	tooLarge := fmt.Errorf("%s is larger than %d MiB: no policy is", path, MaxFileSize>>20)
	if info.Size() > MaxFileSize {
		return nil, tooLarge
	}
	// It may grow meanwhile.
	data, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxFileSize {
		return nil, tooLarge
	}
	return data, nil
}
