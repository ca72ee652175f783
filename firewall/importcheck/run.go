// SPDX-License-Identifier: Apache-2.0

package importcheck

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"syscall"

	"golang.org/x/sys/unix"
)

// Command is the hidden command by which the program runs itself to compare, in namespaces of its own: whatever ends it,
// nothing is left.
const Command = "import-check"

// Run makes comparisons in another process, of the program that is named, and returns what each has found.
func Run(ctx context.Context, program string, jobs []Job) ([]*Agreement, error) {
	input, err := json.Marshal(jobs)
	if err != nil {
		return nil, err
	}
	// The other process dies with this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, program, Command)
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &complaint
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(complaint.String()); text != "" {
			return nil, errors.New(strings.TrimPrefix(text, "portcullis: "))
		}
		return nil, err
	}
	var found []*Agreement
	if err := json.Unmarshal(out.Bytes(), &found); err != nil {
		return nil, err
	}
	return found, nil
}

// Serve reads comparisons, makes them in the namespaces of this process, and writes what they have found. The process has
// to have a mount and a network namespace of its own.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	var jobs []Job
	if err := json.NewDecoder(in).Decode(&jobs); err != nil {
		return fmt.Errorf("read what to compare: %w", err)
	}
	if err := private(); err != nil {
		return err
	}
	b, err := newBench(jobs)
	if err != nil {
		return err
	}
	defer b.close()
	found := make([]*Agreement, len(jobs))
	for i, j := range jobs {
		if found[i], err = b.check(ctx, j); err != nil {
			return err
		}
	}
	return json.NewEncoder(out).Encode(found)
}

// private mounts what a filter writes to, for this process alone.
func private() error {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	if host, err := os.Readlink("/proc/1/ns/net"); err == nil && host == own {
		return errors.New("this command is run by import --verify, in namespaces of its own")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, m := range []struct{ kind, path string }{{"bpf", "/sys/fs/bpf"}, {"tmpfs", "/run"}} {
		if err := unix.Mount(m.kind, m.path, m.kind, 0, "mode=0700"); err != nil {
			return fmt.Errorf("mount %s: %w", m.path, err)
		}
	}
	return nil
}
