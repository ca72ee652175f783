// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// pinned lists the files that are pinned for a policy in force, as paths below the directory of the schema.
func pinned(t *testing.T, l *lab.Lab) (files []string) {
	t.Helper()
	root := filepath.Join(l.PinPath, loader.Schema)
	for _, dir := range []string{"maps", "policy", "links"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && filepath.Base(path) != "mode" {
				file, _ := filepath.Rel(root, path)
				files = append(files, file)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// Whatever single file somebody removes: packets are filtered on, status names it, up puts it back with what the filter
// knew, and down takes the filter off.
func TestOnePinIsMissing(t *testing.T) {
	for _, c := range []struct {
		name string
		loader.Options
	}{
		{"native", loader.Options{Mode: loader.ModeNative}},
		{"clsact", loader.Options{Mode: loader.ModeTC, NoTCX: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			l.Server.Echo(t, 7)
			l.Server.Echo(t, 9)
			l.Client.Echo(t, 8)
			o := c.Options
			o.Interfaces = []string{"eth0"}
			o.Policy = policyOf(t, "9/tcp")
			upWith(t, l, o)
			live := mustDial(t, l.Server, "tcp", lab.ClientV4, 8)
			mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 9), "open")
			files := pinned(t, l)
			if len(files) < len(maps.StatePins())+len(maps.RulesetPins()) {
				t.Fatalf("only these are pinned: %s", files)
			}
			for _, file := range files {
				if c.NoTCX && !strings.Contains(file, "eth0") {
					continue // as in the other mode
				}
				path := filepath.Join(l.PinPath, loader.Schema, file)
				remove := func() {
					t.Helper()
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				}
				remove()
				link := strings.HasPrefix(file, "links/")
				if !link {
					mustTalk(t, live, "through what is filtered on")
				}
				named := strings.TrimSuffix(file, "/"+filepath.Base(file))
				if !link {
					named = file
				}
				if got := strings.Join(status(t, l).Warnings, "\n"); !strings.Contains(got, named) {
					t.Errorf("without %s status says %q", file, got)
				}
				upWith(t, l, o)
				if got := status(t, l).Warnings; len(got) != 0 {
					t.Errorf("after up without %s status says %q", file, got)
				}
				if _, err := os.Lstat(path); err != nil {
					t.Errorf("up does not put %s back: %v", file, err)
				}
				mustTalk(t, live, "after up without "+file)
				if packets := status(t, l).Rules[0].Packets; packets == 0 {
					t.Errorf("after up without %s the rule has counted nothing", file)
				}
				if link {
					mustNotDial(t, l.Client, lab.ServerV4, 7)
				}
				remove()
				down(t, l)
				mustBeClean(t, l)
				upWith(t, l, o)
				mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 9), "open")
			}
		})
	}
}

// Interfaces that rules name have tables of their own. The table of all others is found where one runs on it, and where none
// does up makes another; no command takes the table of a group for it.
func TestTableOfAllOthersIsMissing(t *testing.T) {
	for _, c := range []struct {
		name  string
		rules []string
		lost  bool
	}{
		{"one interface runs on it", []string{"9/tcp", "7/tcp on eth0"}, false},
		{"no interface runs on it", []string{"9/tcp", "7/tcp on eth0", "8/tcp on eth1"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			inside := l.AddInside(t)
			l.Server.Echo(t, 7)
			l.Server.Echo(t, 9)
			upOn(t, l, loader.ModeNative, both, c.rules...)
			mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 9), "open")
			if err := os.Remove(filepath.Join(l.PinPath, loader.Schema, "policy", "ports")); err != nil {
				t.Fatal(err)
			}
			mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 9), "open still")
			l.Server.Do(t, func() error {
				f, err := loader.Open(context.Background(), l.PinPath)
				if c.lost != errors.Is(err, loader.ErrDamaged) || !c.lost && err != nil {
					t.Errorf("without the table: %v", err)
				}
				if err == nil {
					f.Close()
				}
				return nil
			})
			upOn(t, l, loader.ModeNative, both, c.rules...)
			if got := status(t, l); len(got.Warnings) != 0 || !c.lost && got.Rules[0].Packets == 0 {
				t.Errorf("after up status says %q, and the rules are %+v", got.Warnings, got.Rules)
			}
			mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "open on eth0")
			mustNotDial(t, inside, lab.RouterV4, 7)
			mustTalk(t, mustDial(t, inside, "tcp", lab.RouterV4, 9), "open everywhere")
		})
	}
}

// A service may not ask the kernel for what is no longer pinned. It says what is missing, and what mends it.
func TestOnePinIsMissingToTheAgent(t *testing.T) {
	l := lab.New(t)
	a := newAgent(t, l, "interfaces: [eth0]\nopen: [9/tcp]\n")
	a.types("--config", a.file(), "up")
	for _, file := range []string{"maps/flows", "policy/running"} {
		if err := os.Remove(filepath.Join(l.PinPath, loader.Schema, file)); err != nil {
			t.Fatal(err)
		}
		// Root's commands find it where the kernel still has it.
		out, _ := a.command("--config", a.file(), "doctor").CombinedOutput() // which exits with 1 for whatever else is wrong
		if !strings.Contains(string(out), file) {
			t.Errorf("without %s doctor says %s", file, out)
		}
		a.types("--config", a.file(), "open", "--runtime", "10/tcp")
		out, err := a.run().CombinedOutput()
		if err == nil || !strings.Contains(string(out), file) || !strings.Contains(string(out), "repairs this") {
			t.Errorf("without %s it says %v: %s", file, err, out)
		}
		a.types("--config", a.file(), "up")
	}
}

// A command was killed, and somebody has removed the pin of a program: recovery opens nothing.
func TestRecoveryWithoutAPinOpensNothing(t *testing.T) {
	for _, direction := range []string{"in", "out"} {
		l := lab.New(t)
		l.Server.Echo(t, 7)
		up(t, l, loader.ModeNative, policyOf(t, "9/tcp"))
		root := filepath.Join(l.PinPath, loader.Schema)
		if err := os.Mkdir(filepath.Join(root, "next"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(root, "policy", "prog_eth0_"+direction)); err != nil {
			t.Fatal(err)
		}
		if i := status(t, l).Interfaces; len(i) != 1 || !i[0].Present {
			t.Errorf("without the program %s: status says %+v", direction, i)
		}
		mustNotDial(t, l.Client, lab.ServerV4, 7)
		up(t, l, loader.ModeAuto, policyOf(t, "7/tcp"))
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "mended by up")
	}
}

// To remove the pin of a link takes the program off. The agent puts it back, without being asked.
func TestAgentMendsRemovedLinks(t *testing.T) {
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			l := lab.New(t)
			l.Server.Echo(t, 7)
			a := newAgent(t, l, "interfaces: [eth0]\nopen: [9/tcp]\n")
			a.runs("--mode", string(mode))
			links := filepath.Join(l.PinPath, loader.Schema, "links")
			var pins []string
			for _, file := range pinned(t, l) {
				if strings.HasPrefix(file, "links/") {
					pins = append(pins, filepath.Join(l.PinPath, loader.Schema, file))
				}
			}
			if len(pins) != 2 {
				t.Fatalf("pinned are %q", pins)
			}
			for _, pin := range append(pins, filepath.Dir(pins[0]), links) {
				if err := os.RemoveAll(pin); err != nil {
					t.Fatal(err)
				}
				a.waitsFor("repair of "+filepath.Base(pin), func() bool {
					_, err := os.Stat(pins[0])
					return err == nil && a.filters("eth0")
				})
				mustNotDial(t, l.Client, lab.ServerV4, 7)
				if got := status(t, l).Interfaces; len(got) != 1 || got[0].Mode != mode {
					t.Errorf("without %s the agent filters %+v", pin, got)
				}
			}
			if log := a.logged(); strings.Count(log, "somebody has removed the pin of a link") != 2 {
				t.Errorf("the agent says\n%s", log)
			}
		})
	}
}

// Whoever removes the links of the only interface, or all at once, leaves no list of what is filtered. Down takes off what
// is left all the same, and up puts the filter back.
func TestAllLinksAreMissing(t *testing.T) {
	for _, c := range renamable {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			l.Server.Echo(t, 7)
			o := c.Options
			o.Interfaces, o.Policy = []string{"eth0"}, policyOf(t, "9/tcp")
			links := filepath.Join(l.PinPath, loader.Schema, "links")
			for _, gone := range []string{links, filepath.Join(links, "eth0")} {
				upWith(t, l, o)
				remove := func() {
					t.Helper()
					if err := os.RemoveAll(gone); err != nil {
						t.Fatal(err)
					}
				}
				remove()
				if got := strings.Join(status(t, l).Warnings, "\n"); !strings.Contains(got, "eth0 has appeared, and is not filtered") {
					t.Errorf("status says %q", got)
				}
				remove()
				upWith(t, l, loader.Options{NoTCX: o.NoTCX})
				mustNotDial(t, l.Client, lab.ServerV4, 7)
				remove()
				if got := down(t, l).Interfaces; len(got) != 1 || got[0] != "eth0" {
					t.Errorf("down takes off %q", got)
				}
				mustBeClean(t, l)
				mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "after down")
			}
		})
	}
}

// Nor does one of several interfaces leave the filter with its links.
func TestTheLinksOfOneInterfaceAreMissing(t *testing.T) {
	l := lab.New(t)
	inside := l.AddInside(t)
	l.Server.Echo(t, 7)
	upWith(t, l, loader.Options{Interfaces: both, Mode: loader.ModeTC, NoTCX: true, Policy: policyOf(t)})
	if err := os.RemoveAll(filepath.Join(l.PinPath, loader.Schema, "links", "eth1")); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(status(t, l).Warnings, "\n"); !strings.Contains(got, "eth1 has appeared, and is not filtered") {
		t.Errorf("status says %q", got)
	}
	upWith(t, l, loader.Options{})
	mustNotDial(t, inside, lab.RouterV4, 7)
	if got := down(t, l).Interfaces; len(got) != 2 {
		t.Errorf("down takes off %q", got)
	}
	mustTalk(t, mustDial(t, inside, "tcp", lab.RouterV4, 7), "after down")
}

// An interface that was taken off is not filtered again because the links of the others are gone.
func TestMissingLinksBringNothingBack(t *testing.T) {
	l := lab.New(t)
	l.AddInside(t)
	upWith(t, l, loader.Options{Interfaces: []string{"eth0", "eth1"}, Mode: loader.ModeTC, Policy: policyOf(t)})
	l.Server.Do(t, func() error {
		_, err := loader.Down(context.Background(), l.PinPath, []string{"eth1"})
		return err
	})
	if err := os.RemoveAll(filepath.Join(l.PinPath, loader.Schema, "links")); err != nil {
		t.Fatal(err)
	}
	if got := status(t, l).Interfaces; len(got) != 1 || got[0].Name != "eth0" {
		t.Errorf("to be filtered are %+v", got)
	}
}
