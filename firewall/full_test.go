// SPDX-License-Identifier: Apache-2.0

package firewall_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall"
)

// fillRun makes the directory for what ends with the boot one on which there is room for so many files.
func (s *stand) fillRun(options string) {
	s.Helper()
	if os.Geteuid() != 0 {
		s.Skip("needs root, to mount a file system")
	}
	run := s.options().RunDir
	if err := os.MkdirAll(run, 0o755); err != nil {
		s.Fatal(err)
	}
	if err := unix.Mount("full", run, "tmpfs", 0, options); err != nil {
		s.Skipf("needs a tmpfs: %v", err)
	}
	s.Cleanup(func() { _ = unix.Unmount(run, unix.MNT_DETACH) })
}

// What can be done later by itself needs room to be written down. Without it nothing is changed, and the reason is told.
func TestNoSpaceIsLeftForASchedule(t *testing.T) {
	for name, options := range map[string]string{"for a directory": "nr_inodes=1", "for a file": "nr_inodes=4"} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
			s.follower()
			s.fillRun(options)
			if name == "for a file" { // and the directories are there
				s.lock()()
				for n := range 4 {
					_ = os.WriteFile(filepath.Join(s.options().RunDir, string(rune('a'+n))), nil, 0o600)
				}
			}
			candidate := filepath.Join(s.dir, "candidate.yaml")
			s.writes(candidate, "open: [ssh, http]\n")
			_, try := s.fw.Try(context.Background(), firewall.TryRequest{File: candidate, Timeout: time.Hour})
			_, open := s.fw.Open(context.Background(), firewall.OpenRequest{Rules: s.rules("ftp"), For: time.Hour})
			for what, err := range map[string]error{"try": try, "open --for": open} {
				if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), s.options().RunDir) || !strings.Contains(err.Error(), "nothing was changed") {
					t.Errorf("%s says %v", what, err)
				}
			}
			s.opens("ssh")
		})
	}
}
