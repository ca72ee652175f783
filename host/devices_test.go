// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
)

// A list that was interrupted is asked for again, but not for ever.
func TestInterruptedListsAreAskedForAgain(t *testing.T) {
	failed := errors.New("failed")
	for _, c := range []struct {
		answers []error
		asked   int
		err     error
	}{
		{[]error{nil}, 1, nil},
		{[]error{netlink.ErrDumpInterrupted, netlink.ErrDumpInterrupted, nil}, 3, nil},
		{[]error{netlink.ErrDumpInterrupted, failed}, 2, failed},
		{nil, mostLists, netlink.ErrDumpInterrupted},
	} {
		asked := 0
		list, err := CompleteList(func() ([]int, error) {
			var err error = netlink.ErrDumpInterrupted
			if asked < len(c.answers) {
				err = c.answers[asked]
			}
			asked++
			return []int{asked}, err
		})
		if asked != c.asked || !errors.Is(err, c.err) || len(list) != 1 || list[0] != asked {
			t.Errorf("%v: asked %d times, got %v, %v", c.answers, asked, list, err)
		}
	}
}
