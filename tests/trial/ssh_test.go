// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

const (
	sshPort = 2222
	sshDir  = "/run/sshd" // without it no sshd starts
)

// sshd is a real sshd at the server, and the key by which it lets root in. It is the first process of a PID namespace,
// as a machine's would be its child: what a session leaves behind has no parent outside.
type sshd struct {
	*server
	keyAt  string
	config *ssh.ClientConfig
}

func startSSHD(s *server) *sshd {
	t := s.t
	path := lab.NeedProgram(t, "sshd")
	if err := os.MkdirAll(sshDir, 0o755); err != nil { // and leave it: it is everybody's
		t.Fatal(err)
	}
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	d := &sshd{server: s, keyAt: s.path("key")}
	if err := os.WriteFile(d.keyAt, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	s.write("authorized", string(ssh.MarshalAuthorizedKey(key.PublicKey())))
	s.write("sshd_config", fmt.Sprintf(`Port %d
ListenAddress %s
HostKey %s
AuthorizedKeysFile %s
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
`, sshPort, lab.ServerV4, d.keyAt, s.path("authorized")))
	cmd := s.Server.Command("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", path, "-D", "-e", "-f", s.path("sshd_config"))
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("sshd says\n%s", log.String())
		}
	})
	d.config = &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback: ssh.FixedHostKey(key.PublicKey()), Timeout: patience}
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		c, err := s.dial(sshPort, time.Second)
		if err == nil {
			c.Close()
			return d
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// connection is one TCP connection to the sshd, over which there may be any number of sessions.
type connection struct {
	*sshd
	client *ssh.Client
}

// over logs in over a TCP connection.
func (d *sshd) over(c net.Conn) *connection {
	d.t.Helper()
	conn, channels, requests, err := ssh.NewClientConn(c, "server", d.config)
	if err != nil {
		d.t.Fatal(err)
	}
	client := ssh.NewClient(conn, channels, requests)
	d.t.Cleanup(func() { client.Close() })
	return &connection{d, client}
}

func (d *sshd) connect() *connection {
	d.t.Helper()
	return d.over(d.opens(sshPort))
}

// types runs a command line in a session of its own. In it, P stands for the program.
func (c *connection) types(line string) (string, error) {
	c.t.Helper()
	session, err := c.client.NewSession()
	if err != nil {
		c.t.Fatal(err)
	}
	defer session.Close()
	out, err := session.CombinedOutput(fmt.Sprintf("cd %s; P='%s --pin-path %s'; %s", c.dir, c.program, c.PinPath, line))
	return string(out), err
}

func (c *connection) succeeds(line string) string {
	c.t.Helper()
	out, err := c.types(line)
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}

func (c *connection) isRefused(why, line string) {
	c.t.Helper()
	out, err := c.types(line)
	if err == nil || !strings.Contains(out, why) {
		c.t.Fatalf("%s: want a refusal with %q, got %v\n%s", line, why, err, out)
	}
	if c.schedule().Trial == nil {
		c.t.Fatalf("%s: nothing is on trial any more", line)
	}
}

const (
	isOld     = "is from before the change: it passes as established and proves nothing: open a new ssh session"
	isInside  = "within this host, where nothing is filtered: open a new ssh session"
	isUnknown = "nobody can tell by which connection this session came"
)

func TestConfirmOverSSH(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	d := startSSHD(s)
	s.write("old.yaml", "interfaces: [eth0]\nopen: [2222/tcp, 7/tcp]\n")
	s.write("new.yaml", "interfaces: [eth0]\nopen: [2222/tcp, 10/tcp]\n")
	s.run("up", "--config", "old.yaml")
	old := d.connect()
	half := d.opens(sshPort) // a connection of before, at which somebody logs in later
	out := old.succeeds("$P try new.yaml --timeout 10m")
	if !strings.Contains(out, "open a new ssh session and run \"portcullis ") || !strings.Contains(out, " confirm\" there") {
		t.Errorf("try says\n%s", out)
	}

	// Another session over the same connection is no better, nor a shell in a shell, nor one without an environment.
	old.isRefused(isOld, "$P confirm")
	old.isRefused(isOld, "$P confirm --console")
	old.isRefused(isOld, "env -i $P confirm")
	old.isRefused(isOld, "sh -c 'sh -c \"$0 confirm; exit \\$?\"; exit $?' \"$P\"")
	d.over(half).isRefused(isOld, "$P confirm")

	// What an environment says of another connection, be it a new one, proves nothing of this.
	fresh := d.connect()
	of := strings.TrimSpace(fresh.succeeds("echo $SSH_CONNECTION"))
	old.isRefused(isOld, "SSH_CONNECTION='"+of+"' $P confirm")

	// A new connection that the old one makes within the host never meets the filter.
	hop := fmt.Sprintf("ssh -F none -p %d -i %s -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@%s ",
		sshPort, d.keyAt, lab.ServerV4)
	old.isRefused(isInside, hop+"cd "+s.dir+" '&&' $P confirm")

	// What has left the connection that began it, as the server of tmux does, may be anybody's by now.
	for _, c := range []*connection{old, fresh} {
		c.isRefused(isUnknown, "rm -f answer; setsid --fork sh -c \"$P confirm >answering 2>&1; mv answering answer\"; "+
			"while [ ! -e answer ]; do sleep 0.1; done; cat answer; exit 1")
	}

	// After all that, a new connection is all it takes, also in a shell in a shell.
	out = fresh.succeeds("sh -c 'env -i $0 confirm; exit $?' \"$P\"")
	if !strings.Contains(out, "stays in force") {
		t.Errorf("confirm says\n%s", out)
	}
	s.awaitNothing()
	s.opens(10)
	s.closed(7)
	if text, err := os.ReadFile(s.path("old.yaml")); err != nil || !strings.Contains(string(text), "10/tcp") {
		t.Errorf("the policy file: %v\n%s", err, text)
	}
}

// A connection that this host has made does not show that anybody can come in, be it new.
func TestAnOutboundConnectionIsNoWitness(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.Client.Echo(t, 8)
	before, _ := s.ready()
	s.run("try", "new.yaml", "--timeout", "10m")
	out, err := s.prepare(s.Server.Command("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c",
		fmt.Sprintf(`exec 3<>/dev/tcp/%s/8 && "$0" confirm --console; exit $?`, lab.ClientV4), s.program)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "was made by this host") {
		t.Errorf("confirm over a connection to the outside: %v\n%s", err, out)
	}
	s.run("revert")
	s.mustBe(before)
}

// Who locks himself out comes in again when the time is up, though all of his session was killed.
func TestLockedOutOverSSH(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	d := startSSHD(s)
	s.write("old.yaml", "interfaces: [eth0]\nopen: [2222/tcp]\n")
	s.write("new.yaml", "interfaces: [eth0]\nopen: [10/tcp]\n")
	s.run("up", "--config", "old.yaml")
	before := s.status()
	old := d.connect()
	out := old.succeeds("$P try new.yaml --timeout 10m")
	if !strings.Contains(out, "could not be opened again under this policy") {
		t.Errorf("try says\n%s", out)
	}
	old.isRefused(isOld, "$P confirm")
	s.closed(sshPort)
	// The processes of the session, from the shell up to the sshd of the connection.
	old.types("kill -9 $(awk '/^PPid:/{print $2}' /proc/$PPID/status) $PPID $$")
	if _, err := old.client.NewSession(); err == nil {
		t.Error("the session goes on")
	}
	s.closed(sshPort)
	s.makeDue()
	s.awaitNothing()
	d.connect().succeeds("true")
	s.mustBe(before)
}
