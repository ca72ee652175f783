// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// service reports the state of the agent to systemd, if systemd started it (sd_notify(3)).
type service struct{ status string }

func (s *service) notify(state string) { _, _ = daemon.SdNotify(false, state) }

func (s *service) ready()    { s.notify(daemon.SdNotifyReady) }
func (s *service) stopping() { s.notify(daemon.SdNotifyStopping) }
func (s *service) alive()    { s.notify(daemon.SdNotifyWatchdog) }

func (s *service) reloading() {
	s.notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// say sets the line that "systemctl status" shows.
func (s *service) say(status string) {
	if status != s.status {
		s.status = status
		s.notify("STATUS=" + status)
	}
}

// watchdog returns the interval at which the agent has to report that it is alive, or 0.
func watchdog() time.Duration {
	period, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0
	}
	return period / 2
}
