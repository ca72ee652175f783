// SPDX-License-Identifier: Apache-2.0

package maps

import "sync/atomic"

// runSlots is how many places there are for programs to note in that they run.
const runSlots = 1024

// RunSlot returns the place in which the programs of a device note that they run. Devices whose indexes are a multiple
// of 1023 apart share one, so that the one is taken to run while the other does. Place 0 is for programs that may stand
// at several devices.
func RunSlot(ifindex int) uint32 { return uint32(ifindex)%(runSlots-1) + 1 }

// LastRun returns when a program that notes it in a place last looked at a packet that came in, in jiffies modulo 2^32.
func (s *Set) LastRun(slot uint32) (uint32, error) {
	memory, err := s.memory(runMap)
	if err != nil {
		return 0, err
	}
	return atomic.LoadUint32(&words(memory)[slot%runSlots]), nil
}
