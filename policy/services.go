// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// ServicesFile is where the names of services come from.
const ServicesFile = "/etc/services"

// Services maps the names of services to ports, as /etc/services does.
type Services struct {
	byName map[string][]servicePort
}

type servicePort struct {
	protocol string
	port     uint16
}

var builtinServices = sync.OnceValue(func() *Services {
	s, err := ReadServices(strings.NewReader(builtinTable))
	if err != nil {
		panic(err) // a string cannot fail to be read
	}
	return s
})

// defaultServices is read once: a policy must not change its meaning halfway
// through because somebody edits /etc/services.
var defaultServices = sync.OnceValue(func() *Services {
	s, err := LoadServices(ServicesFile)
	if err != nil {
		// A minimal container has no such file. The built-in names serve it.
		return &Services{}
	}
	return s
})

// LoadServices reads a file in the format of /etc/services.
func LoadServices(path string) (*Services, error) {
	f, err := os.Open(path)
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
	s := &Services{byName: make(map[string][]servicePort)}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) < 2 {
			continue
		}
		number, protocol, _ := strings.Cut(fields[1], "/")
		port, err := strconv.ParseUint(number, 10, 16)
		if err != nil || port == 0 || protocol == "" {
			continue
		}
		sp := servicePort{strings.ToLower(protocol), uint16(port)}
		s.add(fields[0], sp)
		for _, alias := range fields[2:] {
			s.add(alias, sp)
		}
	}
	return s, lines.Err()
}

func (s *Services) add(name string, sp servicePort) {
	if !validServiceName(name) {
		return
	}
	for _, known := range s.byName[name] {
		if known.protocol == sp.protocol {
			return
		}
	}
	s.byName[name] = append(s.byName[name], sp)
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
		for _, table := range []*Services{s, builtinServices()} {
			if ports, ok := table.byName[n]; ok {
				return n, ports
			}
		}
	}
	return "", nil
}

func (s *Services) names() []string {
	var names []string
	for _, table := range []*Services{s, builtinServices()} {
		for name := range table.byName {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
