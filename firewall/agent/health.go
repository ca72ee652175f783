// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"
	"time"
)

// Health is what an agent tells of itself to whoever watches it. Its methods may be called at the same time.
type Health struct {
	mu    sync.Mutex
	state HealthState
}

// HealthState is a health at a moment.
type HealthState struct {
	Started  time.Time
	Looked   time.Time // when the agent last looked at the filter
	Problem  string    // why the policy file is not in force, or ""
	Errors   int       // that were logged
	Warnings int
	Error    string // the last one
	ErrorAt  time.Time
}

// State returns the health at this moment.
func (h *Health) State() HealthState {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state
}

// change changes the health, of an agent that somebody watches.
func (h *Health) change(do func(*HealthState)) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	do(&h.state)
}
