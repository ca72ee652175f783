// SPDX-License-Identifier: Apache-2.0

package firewall_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/firewall/firewalltest"
	"github.com/portcullis-firewall/portcullis/maps"
)

// killing is a kernel under which a process ends as soon as a ban is in force.
type killing struct{ *firewalltest.Kernel }

func (k killing) OpenToChange(ctx context.Context, pinPath string) (firewall.Filter, error) {
	f, err := k.Kernel.OpenToChange(ctx, pinPath)
	return killed{f}, err
}

type killed struct{ firewall.Filter }

func (f killed) PutCountedBans(list []maps.Ban) (int, error) {
	put, err := f.Filter.PutCountedBans(list)
	panic(fmt.Sprintf("killed after %d bans: %v", put, err))
}

// Whatever has happened to the journal, the next ban, unban or look of the agent writes down all that is in force.
func TestAJournalThatIsBehindIsCompleted(t *testing.T) {
	ctx := context.Background()
	later := netip.MustParsePrefix("203.0.113.200/32")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	happens := map[string]func(s *stand, path string){
		"removed":   func(_ *stand, path string) { must(os.Remove(path)) },
		"emptied":   func(_ *stand, path string) { must(os.Truncate(path, 0)) },
		"cut short": func(_ *stand, path string) { must(os.Truncate(path, 100)) },
		"could not be written": func(s *stand, path string) {
			must(os.Rename(path, path+".away"))
			must(os.Mkdir(path, 0o700))
			_, err := s.fw.Ban(ctx, firewall.BanRequest{Bans: []bans.Line{{Prefix: netip.MustParsePrefix("203.0.113.3/32"), Reason: "full"}}})
			if !errors.Is(err, firewall.ErrUnrecorded) {
				t.Fatalf("it says %v", err)
			}
			must(os.Remove(path))
			must(os.Rename(path+".away", path))
		},
	}
	happens["was not yet written by a process that is killed"] = func(s *stand, _ string) {
		o := s.options()
		o.StateDir, o.Kernel = filepath.Dir(s.fw.Journal().Path()), killing{s.Kernel}
		defer func() {
			if recover() == nil {
				t.Fatal("nothing was killed")
			}
		}()
		_, _ = firewall.New(o).Ban(ctx, firewall.BanRequest{Force: true, Bans: []bans.Line{{Prefix: netip.MustParsePrefix("203.0.113.4/32"), Reason: "killed"}}})
	}
	next := map[string]func(s *stand){
		"ban": func(s *stand) { banOf(s, false, later.Addr().String()) },
		"unban": func(s *stand) {
			_, err := s.fw.Unban(ctx, firewall.UnbanRequest{Prefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/32")}})
			must(err)
		},
		"agent": func(s *stand) {
			_, err := s.fw.TidyBans(ctx, false)
			must(err)
		},
	}
	for name, happen := range happens {
		for by, write := range next {
			t.Run(name+", "+by, func(t *testing.T) {
				s, _ := newBlockStand(t)
				if _, err := s.fw.Up(ctx, firewall.UpRequest{}); err != nil {
					t.Fatal(err)
				}
				banOf(s, false, "203.0.113.1", "203.0.113.2", "2001:db8::/32")
				happen(s, s.fw.Journal().Path())
				write(s)
				var want []string
				for _, b := range s.BanList {
					want = append(want, bans.Text(b.Prefix))
				}
				s.Running, s.BanList = nil, nil // a boot
				if _, err := s.fw.Up(ctx, firewall.UpRequest{}); err != nil {
					t.Fatal(err)
				}
				if len(want) < 2 || len(s.BanList) != len(want) {
					t.Errorf("banned are %v, want %q", s.BanList, want)
				}
			})
		}
	}
}
