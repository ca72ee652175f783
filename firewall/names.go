// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Names returns what the rules of a command line may name: the lists of the policy file, and those that the rules in
// force name where the file has none of that name, or cannot be read.
func (fw *Firewall) Names(ctx context.Context) (policy.Names, error) {
	f, err := fw.View(ctx)
	if err != nil {
		return policy.Names{}, err
	}
	defer f.Close()
	inForce, err := f.Policy()
	if err != nil {
		return policy.Names{}, err
	}
	known := policy.ListsOf(inForce.Open)
	s, err := fw.readSource(fw.configToWrite(f))
	if err != nil {
		if len(known) == 0 && !errors.Is(err, fs.ErrNotExist) {
			return policy.Names{}, err
		}
		return policy.Names{Lists: known}, nil
	}
	lists := slices.Clone(s.policy.Lists)
	for _, l := range known {
		if !slices.ContainsFunc(lists, func(have policy.List) bool { return have.Name == l.Name }) {
			lists = append(lists, l)
		}
	}
	return policy.Names{Lists: lists}, nil
}
