// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"fmt"
	"os"
	"strings"
)

// Constants are the load-time constants of a program that depend on its device. They are kept beside its pin, as
// the target of a symbolic link: to ask the program itself takes CAP_SYS_ADMIN, which a service should not need.
type Constants struct {
	Ethernet bool
	MAC      [6]byte
	RunSlot  uint32 // 0 for a program that stands at other devices, too
	MTU      int    // no constant, but what the device had
	Table    string // the pin of the table of ports that it is loaded over
	Settings string // stands for the settings of the policy that differ by interface; "" where an older version recorded it
	Page     uint32 // of the ledger, on which it counts; 0 where an older version recorded it
	Many     bool   // it is loaded once for many devices, and looks MAC and RunSlot up
}

const (
	// ConstantsSuffix ends the name of the record of a program, which begins with the path of its pin.
	ConstantsSuffix = "_constants"
	constantsFormat = "%t %x %d %d %s"
	manyDevices     = "many"
)

// Record keeps the constants of the program that is pinned at a path.
func (c Constants) Record(program string) error {
	path := program + ConstantsSuffix
	_ = os.Remove(path)
	text := fmt.Sprintf(constantsFormat+" %s %d", c.Ethernet, c.MAC, c.RunSlot, c.MTU, c.Table, c.Settings, c.Page)
	if c.Many {
		text += " " + manyDevices
	}
	if err := os.Symlink(text, path); err != nil {
		return fmt.Errorf("record the constants of a program: %w", err)
	}
	return nil
}

// LoadedWith returns the constants of the program that is pinned at a path.
func LoadedWith(program string) (c Constants, err error) {
	text, err := os.Readlink(program + ConstantsSuffix)
	if err != nil {
		return c, fmt.Errorf("read the constants of a program: %w", err)
	}
	var mac []byte
	if _, err := fmt.Sscanf(text, constantsFormat, &c.Ethernet, &mac, &c.RunSlot, &c.MTU, &c.Table); err != nil {
		return c, fmt.Errorf("read the constants of a program: %q: %w", text, err)
	}
	copy(c.MAC[:], mac)
	words := strings.Fields(text)
	if n := len(words); words[n-1] == manyDevices {
		c.Many, words = true, words[:n-1]
	}
	if len(words) > 5 {
		c.Settings = words[5]
	}
	if len(words) > 6 {
		if _, err := fmt.Sscan(words[6], &c.Page); err != nil {
			return c, fmt.Errorf("read the constants of a program: %q: %w", text, err)
		}
	}
	return c, nil
}
