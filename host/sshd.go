// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/policy"
)

const sshPort = 22

// SSHPorts returns the TCP ports on which an sshd listens, in order. Where systemd listens for it, the listener is not
// called sshd, so whoever listens on port 22 counts too. Anybody can call a process sshd: elsewhere only root's counts.
// Where not every process may be looked at, as in a service without CAP_SYS_PTRACE, root's listener counts at any port that
// sshd is configured for.
func SSHPorts() ([]uint16, error) {
	found, err := listenersOf(policy.TCP)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(l Listener) bool { return l.Local.Addr().IsLoopback() })
	nameProcesses(found)
	var configured []uint16
	if !seesEveryProcess() {
		configured = ConfiguredSSHPorts(nil)
	}
	return sshPortsAmong(found, configured), nil
}

// sshPortsAmong is SSHPorts for some listeners, and the ports at which root's counts whatever it is called.
func sshPortsAmong(found []Listener, configured []uint16) (ports []uint16) {
	for _, l := range found {
		port := l.Local.Port()
		if port == sshPort || l.uid == 0 && (slices.Contains(l.Processes, "sshd") || slices.Contains(configured, port)) {
			ports = append(ports, port)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// SSHSessions returns the connections to an sshd over which somebody has logged in, of those whose remote end is among the
// addresses. Who only tries to log in has a connection, too, and no session. Where not every process may be looked at, as in
// a service without CAP_SYS_PTRACE, any connection to a port counts that root's sshd is configured for.
func SSHSessions(among func(netip.Addr) bool) ([]Connection, error) {
	l, err := findLogins(among)
	if err != nil || len(l.byInode) == 0 {
		return nil, err
	}
	// To read of a process waits for it where it is in the middle of getting memory, which may be long.
	done := make(chan map[Connection]bool, 1)
	go func() { done <- l.sessions(!seesEveryProcess()) }()
	select {
	case sessions := <-done:
		var out []Connection
		for _, c := range l.byInode {
			if sessions[c] {
				out = append(out, c)
			}
		}
		return out, nil
	case <-time.After(longestLook):
		return l.atServers(!seesEveryProcess())
	}
}

// longestLook is how long processes are looked at. Then any connection to an sshd counts.
const longestLook = 2 * time.Second

// logins are connections over which somebody may have logged in, and what root listens on.
type logins struct {
	byInode    map[uint32]Connection
	listening  []netip.AddrPort
	configured []uint16 // the ports that an sshd is to listen on
}

func findLogins(among func(netip.Addr) bool) (*logins, error) {
	l := &logins{byInode: make(map[uint32]Connection), configured: ConfiguredSSHPorts(nil)}
	return l, everySocket(unix.IPPROTO_TCP, func(k *Socket) { l.add(k, among) })
}

// add adds a socket if it is root's. Whoever accepts a connection, or makes it, has the socket, and that is root's sshd:
// without this anybody could have a connection of his own taken for a session.
func (l *logins) add(k *Socket, among func(netip.Addr) bool) {
	switch {
	case k.uid != 0:
	case k.State == netlink.TCP_LISTEN:
		l.listening = append(l.listening, k.Local)
	case k.State == netlink.TCP_ESTABLISHED && k.inode != 0 && IsOutside(k.Local, k.Remote) && among(k.Remote.Addr()):
		l.byInode[k.inode] = Connection{k.Local, k.Remote}
	}
}

// atServers returns the connections to an sshd; blind: to a port of its configuration on which root listens, as the names of
// the listeners are unknown.
func (l *logins) atServers(blind bool) (out []Connection, err error) {
	ports, err := SSHPorts()
	for _, c := range l.byInode {
		if slices.Contains(ports, c.Local.Port()) || blind && slices.Contains(l.configured, c.Local.Port()) && c.cameInTo(l.listening) {
			out = append(out, c)
		}
	}
	return out, err
}

// sessions looks at every process that it can see.
func (l *logins) sessions(blind bool) map[Connection]bool {
	sessions, known := make(map[Connection]bool), make(map[Connection]bool)
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		title, err := os.ReadFile(process + "/cmdline")
		loggedIn := isLoggedIn(string(bytes.TrimRight(title, "\x00 ")))
		if err != nil || !loggedIn && !blind {
			continue
		}
		inodes, _ := socketInodes(process)
		for _, inode := range inodes {
			if c, ok := l.byInode[inode]; ok {
				known[c] = true
				sessions[c] = sessions[c] || loggedIn
			}
		}
	}
	l.addRecorded(sessions, recordedSessions(processes))
	if blind {
		hidden, _ := l.atServers(true)
		for _, c := range hidden {
			sessions[c] = sessions[c] || !known[c]
		}
	}
	return sessions
}

// addRecorded adds what processes say of themselves. Anybody can say that of a connection that root has made.
func (l *logins) addRecorded(sessions, recorded map[Connection]bool) {
	for c := range recorded {
		if c.cameInTo(l.listening) {
			sessions[c] = true
		}
	}
}

// initialPIDs is the inode of the first PID namespace (PROC_PID_INIT_INO in linux/proc_ns.h).
const initialPIDs = "pid:[4026531836]"

// seesEveryProcess reports whether this process may look at all that there are.
func seesEveryProcess() bool {
	namespace, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && namespace == initialPIDs && mayLookAt("/proc/1")
}

// mayLookAt reports whether this process may see what another one holds open. That root may list a process's descriptors
// says nothing: to read one of them, or its environment, takes the right to trace it.
func mayLookAt(process string) bool {
	_, err := os.Readlink(process + "/ns/net")
	return err == nil
}

// ConfiguredSSHPorts returns the ports that the files of OpenSSH's server name: see Port and ListenAddress in
// sshd_config(5). Where files is nil, this host's are read.
func ConfiguredSSHPorts(files fs.FS) (ports []uint16) {
	if files == nil {
		files = Files
	}
	names, _ := fs.Glob(files, "etc/ssh/sshd_config.d/*.conf")
	for _, name := range append(names, "etc/ssh/sshd_config") {
		text, _ := fs.ReadFile(files, name)
		for line := range strings.Lines(string(text)) {
			word, value, _ := strings.Cut(strings.Replace(strings.TrimSpace(line), "=", " ", 1), " ")
			value = strings.Trim(strings.TrimSpace(value), `"`)
			switch strings.ToLower(word) {
			case "listenaddress":
				value = value[strings.LastIndex(value, ":")+1:]
			case "port":
			default:
				continue
			}
			if port, err := strconv.ParseUint(value, 10, 16); err == nil {
				ports = append(ports, uint16(port))
			}
		}
	}
	return ports
}

// isLoggedIn reports whether a process is an sshd that calls itself after a session: "sshd: root@pts/0", and "sshd-session:
// root@notty" from OpenSSH 9.8 on. Before that, it is "sshd: root [priv]" and the like.
func isLoggedIn(title string) bool {
	name, who, ok := strings.Cut(title, ": ")
	return ok && (name == "sshd" || name == "sshd-session") && strings.Contains(who, "@") && !strings.HasSuffix(who, "]")
}

// recordedSessions returns the connections that stand in $SSH_CONNECTION of any process, as every ssh server says it to
// what it starts.
func recordedSessions(processes []string) map[Connection]bool {
	told := make(map[Connection]bool)
	for _, process := range processes {
		environ, err := os.ReadFile(process + "/environ")
		if err != nil {
			continue
		}
		for variable := range bytes.SplitSeq(environ, []byte{0}) {
			if value, ok := bytes.CutPrefix(variable, []byte("SSH_CONNECTION=")); ok {
				if c, ok := parseSSHConnection(string(value)); ok {
					told[c] = true
				}
			}
		}
	}
	return told
}

// parseSSHConnection reads $SSH_CONNECTION: the client's address and port, and the server's.
func parseSSHConnection(text string) (c Connection, ok bool) {
	fields := strings.Fields(text)
	if len(fields) != 4 {
		return c, false
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		addr, err := netip.ParseAddr(fields[2*i])
		if err != nil {
			return c, false
		}
		port, err := strconv.ParseUint(fields[2*i+1], 10, 16)
		if err != nil {
			return c, false
		}
		ends[i] = netip.AddrPortFrom(addr.WithZone("").Unmap(), uint16(port))
	}
	return Connection{Local: ends[1], Remote: ends[0]}, true
}
