// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// ServicesFile is where the names of services come from.
const ServicesFile = "/etc/services"

// Services maps the names of services to ports, as /etc/services does. It keeps the text, as a command looks for a few
// names at most.
type Services struct {
	text string
	gone map[string][]servicePort // see RememberServices
}

type servicePort struct {
	protocol string
	port     uint16
}

var builtinServices = &Services{text: builtinTable}

// defaultServices is read once between two calls of [ForgetServices]: a policy
// must not change its meaning halfway through because somebody edits the file.
var defaultServices = func() *Services {
	if s := knownServices.Load(); s != nil {
		return s
	}
	s, err := LoadServices(ServicesFile)
	if err != nil {
		// A minimal container has no such file. The built-in names serve it.
		s = &Services{}
	}
	knownServices.Store(s)
	return s
}

var knownServices atomic.Pointer[Services]

// ForgetServices makes the next rule that names a service read [ServicesFile]
// anew. A process that lives for long calls it between one change and the next.
func ForgetServices() { knownServices.Store(nil) }

// LoadServices reads a file in the format of /etc/services.
func LoadServices(path string) (*Services, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would wait for who writes
	if err != nil {
		return nil, fmt.Errorf("read services: %w", err)
	}
	defer f.Close()
	s, err := ReadServices(f)
	if err != nil {
		return nil, fmt.Errorf("read services from %s: %w", path, err)
	}
	return s, nil
}

// ReadServices reads text in the format of /etc/services. Like the C library
// it skips lines that it cannot read, and the first line with a name wins.
func ReadServices(r io.Reader) (*Services, error) {
	text, err := io.ReadAll(r)
	return &Services{text: string(text)}, err
}

// readService reads one line: a port, and the names that it has.
func readService(line string) (sp servicePort, names []string, ok bool) {
	line, _, _ = strings.Cut(line, "#")
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return sp, nil, false
	}
	number, protocol, _ := strings.Cut(fields[1], "/")
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil || port == 0 || protocol == "" {
		return sp, nil, false
	}
	sp = servicePort{strings.ToLower(protocol), uint16(port)}
	return sp, append(fields[:1], fields[2:]...), true
}

// find returns the ports of a name, one of each protocol.
func (s *Services) find(name string) (ports []servicePort) {
	if !validServiceName(name) {
		return nil
	}
	for rest := s.text; ; {
		at := strings.Index(rest, name)
		if at < 0 {
			return ports
		}
		start := strings.LastIndexByte(rest[:at], '\n') + 1
		line, after, _ := strings.Cut(rest[start:], "\n")
		sp, names, ok := readService(line)
		same := func(known servicePort) bool { return known.protocol == sp.protocol }
		if ok && slices.Contains(names, name) && !slices.ContainsFunc(ports, same) {
			ports = append(ports, sp)
		}
		rest = after
	}
}

// validServiceName keeps names that the grammar of a rule, a comma list and a
// YAML file would read as something else out of the table.
func validServiceName(name string) bool {
	letter := false
	for i, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
			letter = true
		case '0' <= c && c <= '9':
		case i > 0 && strings.IndexByte("-_.+", c) >= 0:
		default:
			return false
		}
	}
	return letter
}

// lookup finds a name in the table, then among the built-in ones, first as
// written and then in lower case.
func (s *Services) lookup(name string) (found string, ports []servicePort) {
	for _, n := range []string{name, strings.ToLower(name)} {
		for _, table := range []*Services{s, builtinServices} {
			if ports := table.find(n); ports != nil {
				return n, ports
			}
		}
	}
	if ports := s.gone[name]; ports != nil {
		return name, ports
	}
	return "", nil
}

func (s *Services) names() []string {
	var names []string
	for _, table := range []*Services{s, builtinServices} {
		for line := range strings.Lines(table.text) {
			_, of, _ := readService(line)
			names = append(names, slices.DeleteFunc(of, func(name string) bool { return !validServiceName(name) })...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
