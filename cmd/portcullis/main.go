// SPDX-License-Identifier: Apache-2.0

// A command is over before the limits of its container change.
//go:debug updatemaxprocs=0

// Command portcullis is the command line of the firewall.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/user"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// version is set by the build.
var version = "dev"

// Exit codes; 0 also stands for what was so already.
const (
	exitFailed     = 1
	exitUsage      = 2
	exitNotRunning = 3
)

const memoryBeforeCollection = 128 << 20 // bytes

// env is all that a command knows of the world around it.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	privileged     func() error    // why this process may not change the kernel's filters
	session        func() string   // $SSH_CONNECTION of the session that this command came by
	kernel         firewall.Kernel // nil: this host's
	runDir         string          // of locks and schedules; "": the usual one
	stateDir       string          // of the last good policy; "": the usual one

	daemon func(argv []string) error // becomes portcullisd; nil: does it
}

func main() {
	collectLate()
	e := env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, privileged: privileged, session: user.FindSSHConnection}
	if code := run(e, os.Args[1:]); code != 0 {
		os.Exit(code)
	}
}

// collectLate lets a command end before garbage is worth collecting. One with more to do than that is collected as any
// program is, from the limit on: to be kept below it would take most of the time.
func collectLate() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryBeforeCollection)
	type firstGarbage struct{ _ *byte } // a pointer keeps it apart from what has no finalizer
	runtime.SetFinalizer(&firstGarbage{}, func(*firstGarbage) {
		debug.SetGCPercent(100)
		debug.SetMemoryLimit(math.MaxInt64)
	})
}

// run runs one command line and returns its exit code.
func run(e env, args []string) int {
	outlet := newOutlet(e.stdout)
	a := &app{env: e, unprintable: unprintable(args), out: bufio.NewWriter(outlet), outlet: outlet, screen: e.stdout, terminal: e.stderr}
	a.stdout, a.stderr = quote.NewWriter(a.out), quote.NewWriter(e.stderr)
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if flushed := a.out.Flush(); err == nil && flushed != nil {
		err = fmt.Errorf("write the output: %w", flushed)
	}
	if err == nil {
		return 0
	}
	a.complain(err)
	switch {
	case errors.As(err, new(usageError)):
		return exitUsage
	case errors.Is(err, loader.ErrNotRunning), errors.Is(err, loader.ErrNotFiltered):
		return exitNotRunning
	}
	return exitFailed
}

// untilSignal returns a context that the first signal ends, and with it what a command waits for, so that it takes back
// what it has begun; the second signal ends the command. What needs no privilege begins nothing, and the first one ends it,
// which is quicker to start. To let go of the signals at the end would only take time.
func untilSignal(cmd *cobra.Command) context.Context {
	if cmd.Annotations[needsAnnotation] == "" && !cmd.Hidden {
		return cmd.Context()
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx
}

// usageError is a wrong command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// complain prints an error, one line each where it holds several.
func (a *app) complain(err error) {
	text := a.complete(err.Error())
	if errors.Is(err, unix.EPERM) && !errors.Is(err, errPrivileges) {
		text += "\n" + errPrivileges.Error()
	}
	for line := range strings.Lines(text) { // none of what was told already
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintf(a.stderr, "portcullis: %s\n", strings.TrimPrefix(line, "portcullis is "))
		}
	}
}

// warn prints what a command that succeeds has to say beside its result. It completes the sentences in place, so that a
// report says them in JSON as they are printed.
func (a *app) warn(sentences ...string) {
	_ = a.out.Flush() // run asks again
	for i, s := range sentences {
		sentences[i] = quote.Text(strings.ReplaceAll(a.complete(s), "\n", "; ")) // several errors, one warning
		fmt.Fprintf(a.stderr, "portcullis: warning: %s\n", sentences[i])
	}
}

// unprintable returns the names among the arguments, and on the way to this directory, that would not stay on their line.
func unprintable(args []string) (names []string) {
	dir, _ := os.Getwd()
	for _, arg := range append(slices.Clone(args), dir) {
		for name := range strings.SplitSeq(arg, "/") {
			if quote.Text(name) != name && strings.TrimSpace(name) != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

// complete writes the flags of this command into the commands that a text names, so that they are about the same filter
// and file. It quotes the names of the command line, which errors of the system repeat as they are.
func (a *app) complete(text string) string {
	for _, name := range a.unprintable {
		text = strings.ReplaceAll(text, name, quote.Text(name))
	}
	if a.firewall == nil { // the flags are wrong
		return text
	}
	flags := a.firewall.Flags()
	// Once the filter is down, nobody knows its file.
	if flags.Config == "" && a.inForce != firewall.DefaultConfig && strings.Contains(text, `"portcullis down" and "portcullis up"`) {
		flags.Config = a.inForce
	}
	return flags.Complete(text)
}

var errPrivileges = errors.New("this needs root, or CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and a pin path of one's own: try sudo")

// privileged fails early and in one line, where the kernel would fail late and in its own words.
func privileged() error {
	if os.Geteuid() == 0 {
		return nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return errPrivileges
	}
	for _, c := range []int{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON} {
		if data[c/32].Effective&(1<<(c%32)) == 0 {
			return errPrivileges
		}
	}
	return nil
}
