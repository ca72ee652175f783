// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// needed are the capabilities that a filter takes, but for CAP_SYS_ADMIN, which stands for all of them.
var needed = []struct {
	name string
	bit  uint
}{
	{"CAP_BPF", unix.CAP_BPF},
	{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN},
	{"CAP_PERFMON", unix.CAP_PERFMON},
}

// lacking returns the capabilities that are needed and this process has not.
func lacking() (names []string) {
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return nil
	}
	var effective uint64
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			if effective, err = strconv.ParseUint(strings.TrimSpace(value), 16, 64); err != nil {
				return nil
			}
		}
	}
	if effective>>unix.CAP_SYS_ADMIN&1 != 0 {
		return nil
	}
	for _, c := range needed {
		if effective>>c.bit&1 == 0 {
			names = append(names, c.name)
		}
	}
	return names
}

// permissionError says which capability is missing where the kernel refused something for it. Its own words, the
// verifier's above all, say everything but that.
func permissionError(err error) error {
	var verifier *ebpf.VerifierError
	if err == nil || !errors.Is(err, fs.ErrPermission) && !errors.As(err, &verifier) {
		return err
	}
	names := lacking()
	switch len(names) {
	case 0:
		return err
	case 1:
		return fmt.Errorf("the capability %s is missing: run portcullis as root, or give it that one, too", names[0])
	}
	return fmt.Errorf("the capabilities %s are missing: run portcullis as root, or give it those, too", strings.Join(names, ", "))
}
