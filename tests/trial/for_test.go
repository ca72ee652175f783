// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
)

func TestOpenForATime(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	before, _ := s.ready()
	s.run("open", "10/tcp", "--for", "10s")
	live := s.opens(10)
	s.lives(live)
	if out := s.run("status"); !strings.Contains(out, "for another ") {
		t.Errorf("status says\n%s", out)
	}
	s.awaitNothing()
	s.closed(10)
	s.lives(live)
	s.mustBe(before)
}

func TestOpenForALongerTime(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	before, _ := s.ready()
	s.run("open", "10/tcp", "--for", "5m")
	s.run("open", "10/tcp", "11/tcp", "--for", "1h")
	if n := len(s.watchdogs()); n != 1 {
		t.Errorf("%d watchdogs", n)
	}
	for _, timed := range s.schedule().Timed {
		if timed.Due.Left() < 30*time.Minute {
			t.Errorf("%s closes in %v", timed.Rule, timed.Due.Left())
		}
	}
	s.run("open", "10/tcp", "--for", "1s")
	s.run("close", "11/tcp", "--runtime")
	s.awaitNothing()
	s.closed(10)
	s.mustBe(before)
}

// What was opened for good meanwhile stays open.
func TestOpenForGoodBeforeTheTimeIsUp(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.ready()
	s.run("open", "10/tcp", "--for", "1h")
	s.run("open", "10/tcp")
	s.awaitNothing()
	s.opens(10)
}

// A trial ends what is open for a time, and brings it back only when its time is not up.
func TestATrialMeetsWhatIsOpenForATime(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	before, _ := s.ready()
	s.run("open", "10/tcp", "--for", "1h")
	s.run("open", "11/tcp", "--for", "1h")
	s.write("bare.yaml", "interfaces: [eth0]\n")
	s.run("try", "bare.yaml")
	s.closed(10)
	s.makeDue("10/tcp")
	s.await(func(d *schedule.Schedule) bool { return len(d.Timed) == 1 })
	s.makeDue()
	s.await(func(d *schedule.Schedule) bool { return d.Trial == nil })
	s.closed(10)
	out := s.run("status")
	if !strings.Contains(out, "11/tcp") || !strings.Contains(out, "for another ") || strings.Contains(out, "10/tcp") {
		t.Errorf("status says\n%s", out)
	}
	s.run("close", "11/tcp", "--runtime")
	s.awaitNothing()
	s.mustBe(before)
}
