// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// Names that would clear the screen, set its title, turn text round and begin a line of their own. The kernel takes the
// second as that of an interface.
const (
	hostileProcess   = "\x1b[2J\n\u202ex"
	hostileInterface = "\x1b[2J\x9b31m\x07"
	hostileFile      = "fw\x1b]0;owned\x07\u202e.yaml"
)

// helperVariable makes the test program a process that holds locks, and what else it has inherited, until its standard
// input ends.
const helperVariable = "PORTCULLIS_TEST_HOLDS"

func holdIfAsked() {
	paths, asked := os.LookupEnv(helperVariable)
	if !asked {
		return
	}
	for _, path := range strings.Split(paths, "\n") {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Flock(fd, unix.LOCK_EX)
		}
		if err != nil && path != "" {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	fmt.Println("holds")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// holder starts a process with a hostile name and arguments, which holds locks and sockets.
func holder(t *testing.T, paths []string, files ...*os.File) {
	t.Helper()
	program := filepath.Join(t.TempDir(), hostileProcess)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", self, program).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(program)
	cmd.Args = []string{hostileProcess, "\x1b[31m" + strings.Repeat("long", 1000)}
	cmd.Env = append(os.Environ(), helperVariable+"="+strings.Join(paths, "\n"))
	cmd.ExtraFiles = files
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	line := make([]byte, 100)
	if n, _ := out.Read(line); !strings.HasPrefix(string(line[:n]), "holds") {
		t.Fatalf("the helper says %q", line[:n])
	}
}

// harmless demands that a text writes nothing to a terminal but itself, and that it shows what was asked for.
func harmless(t *testing.T, what, text string, shows ...string) {
	t.Helper()
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
		t.Errorf("%s prints %q", what, text)
	}
	for _, s := range shows {
		if !strings.Contains(text, s) {
			t.Errorf("%s does not show %s:\n%s", what, s, text)
		}
	}
	for line := range strings.Lines(text) {
		if len(line) > 2000 {
			t.Errorf("%s prints a line of %d bytes", what, len(line))
		}
	}
}

// What strangers have named is shown, and does nothing to the terminal of root.
func TestHostileNames(t *testing.T) {
	p := newPatient(t)
	const shownInterface, shownProcess = `\x1b[2J\x9b31m\x07`, `\x1b[2J\n\u202ex`
	s := p.Server
	if out, err := exec.Command("ip", "-n", s.Name, "link", "add", "name", hostileInterface, "type", "veth", "peer", "name", "other").CombinedOutput(); err != nil {
		t.Skipf("this kernel takes no such name: %v: %s", err, out)
	}
	s.IP(t, "addr", "add", "203.0.113.1/24", "dev", hostileInterface)
	s.IP(t, "link", "set", hostileInterface, "up")
	s.IP(t, "link", "set", "other", "up")
	p.config = filepath.Join(filepath.Dir(p.config), hostileFile)
	p.write("interfaces: [eth0]\nopen: [80/tcp]\n")
	config := " --config \"$CONFIG\""
	run := func(line string) string {
		cmd := s.Command("sh", "-c", line)
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "PORTCULLIS_PIN_PATH="+p.PinPath, "SSH_CONNECTION=",
			"CONFIG="+p.config, "IFACE="+hostileInterface)
		out, _ := cmd.CombinedOutput() // some are refused
		return string(out)
	}

	var listener *os.File
	s.Do(t, func() error {
		l, err := net.Listen("tcp4", "0.0.0.0:5432")
		if err != nil {
			return err
		}
		defer l.Close()
		listener, err = l.(*net.TCPListener).File()
		return err
	})
	defer listener.Close()
	holder(t, nil, listener)

	const file = `fw\x1b]0;owned\x07\u202e.yaml`
	harmless(t, "check", run("portcullis check"+config), file+" is good")
	harmless(t, "up", run("portcullis up eth0"+config), file, shownInterface+" are not filtered")
	harmless(t, "up of the interface", run("portcullis up \"$IFACE\" --mode tc"), shownInterface+": filtering")
	harmless(t, "status", run("portcullis status"), shownInterface, file)
	harmless(t, "audit", run("portcullis audit"), shownProcess)
	harmless(t, "audit in JSON", run("portcullis audit -o json"), `\u202ex`)
	harmless(t, "doctor", run("portcullis doctor -v"), shownInterface)
	harmless(t, "doctor in JSON", run("portcullis doctor -o json"), `[2J`)
	harmless(t, "a missing file", run("portcullis check \"$CONFIG.none\""), `\u202e.yaml.none`)
	harmless(t, "a file with a mistake", run("echo 'open: [$(printf \"\\033[2J\")]' > \"$CONFIG\"; portcullis check"+config), file)
	harmless(t, "a missing interface", run("portcullis doctor \"x$IFACE\"; portcullis down \"x$IFACE\""), "x"+shownInterface)
	harmless(t, "flows", run("portcullis flows"))

	// A packet that is logged comes in by it.
	p.write("interfaces: [eth0]\ninvalid: log\nopen: [80/tcp]\n")
	run("portcullis apply" + config)
	s.Do(t, func() error { return sendInvalid("other") })
	text := ""
	for range 20 {
		if text += run("portcullis log"); strings.Contains(text, "invalid") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	harmless(t, "log", text, shownInterface)

	locks := []string{p.PinPath, p.State()}
	more, _ := filepath.Glob("/run/portcullis/locks/*")
	holder(t, append(locks, more...))
	harmless(t, "a command that waits", run("timeout 4 portcullis open 81/tcp"), "waiting for process ", `\x1b[2J\n\u202ex \x1b[31mlonglong`)
}

// sendInvalid sends a TCP segment without flags to this host by an interface.
func sendInvalid(name string) error {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	frame := make([]byte, 14+20+20)
	for j := range 6 {
		frame[j] = 0xff
	}
	frame[12] = 0x08
	ip := frame[14:]
	ip[0], ip[3], ip[8], ip[9] = 0x45, 40, 64, unix.IPPROTO_TCP
	copy(ip[12:], []byte{203, 0, 113, 2})
	copy(ip[16:], lab.ServerV4.AsSlice())
	tcp := ip[20:]
	tcp[1], tcp[3], tcp[12] = 9, 80, 5<<4
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: i.Index, Halen: 6})
}
