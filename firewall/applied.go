// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"strings"
)

// What is in force may be another policy than the file's, because somebody wanted it so: a rule was closed with
// --runtime, another file applied. So whether the file has changed is not asked of the filter, but of a record of the file
// as it was when it last was put in force, or overruled. It ends with the boot, as the filter does.

// applied is a policy file as it was when somebody last decided what is in force.
type applied struct {
	config string
	digest string // of its text; noFile where there was none
}

const (
	appliedFile = "applied.sha256" // a line as sha256sum(1) writes it
	noFile      = "-"
)

func digest(text []byte) string {
	if text == nil {
		return noFile
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// readApplied returns the record, or nil where there is none.
func (fw *Firewall) readApplied() (*applied, error) {
	line, err := os.ReadFile(fw.store.Path(appliedFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	text, whole := strings.CutSuffix(string(line), "\n")
	sum, config, ok := strings.Cut(text, "  ")
	if !whole || !ok {
		return nil, nil // it was cut off
	}
	return &applied{config, sum}, nil
}

// is reports whether the policy file counts as applied with this text.
func (a *applied) is(config string, text []byte) bool {
	return a != nil && a.config == config && a.digest == digest(text)
}

// recordApplied records that a policy file counts as applied with this text, which is nil where there is no file.
func (c *change) recordApplied(config string, text []byte) {
	if !c.keeps {
		return
	}
	path := c.fw.store.Path(appliedFile)
	if os.WriteFile(path, []byte(digest(text)+"  "+config+"\n"), 0o600) != nil {
		// Without a record the file is compared with what is in force, with an old one it would be overlooked.
		_ = os.Remove(path)
	}
}

// recordEdit records that the policy file was edited, and the filter in the same way. If somebody else had changed the
// file before, that is still to be put in force.
func (c *change) recordEdit(file *policyFile) {
	if !file.saved {
		return
	}
	before := file.old
	if !file.exists {
		before = nil
	}
	if was, err := c.fw.readApplied(); err == nil && was.is(file.path, before) {
		c.recordApplied(file.path, file.text)
	}
}

// recordOverruled records that whatever the policy file says now is not what is to be in force.
func (c *change) recordOverruled(config string) {
	text, err := readFile(config)
	if err != nil {
		text = nil
	}
	c.recordApplied(config, text)
}

// forgetApplied takes the record away: nothing is in force.
func (c *change) forgetApplied() {
	_ = os.Remove(c.fw.store.Path(appliedFile)) // or there was none
}
