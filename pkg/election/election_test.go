package election

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func ready(name string) Candidate {
	return Candidate{NodeName: name, Exists: true, Member: true, Ready: true}
}

func unready(name string) Candidate { return Candidate{NodeName: name, Exists: true, Member: true} }

func since(name string, at time.Time) Candidate {
	c := unready(name)
	c.NotReadySince = at
	return c
}

var noon = time.Date(2025, 6, 1, 12, 0, 0, 0, time.UTC)

func TestElect(t *testing.T) {
	unknown := Candidate{NodeName: "a"}
	stranger := Candidate{NodeName: "a", Exists: true, Ready: true}
	for _, c := range []struct {
		name    string
		in      Input
		active  string
		reason  string
		changed bool
		elected bool
	}{
		{"the first ready candidate in list order is elected",
			Input{Candidates: []Candidate{unready("b"), ready("c"), ready("a")}, Replicas: 1}, "c", ReasonElected, true, true},
		{"an active node stays although one before it in the list is ready",
			Input{Candidates: []Candidate{ready("a"), ready("b")}, Replicas: 1, Current: []string{"b"}}, "b", ReasonElected, false, true},
		{"an active node that is not ready loses to a ready one",
			Input{Candidates: []Candidate{unready("a"), ready("b")}, Replicas: 1, Current: []string{"a"}}, "b", ReasonElected, true, true},
		{"the last active node stays while nobody is ready",
			Input{Candidates: []Candidate{unready("a"), unready("b")}, Replicas: 1, Current: []string{"b"}}, "b", ReasonNoCandidateReady, false, false},
		{"nobody is elected while nobody has ever been ready",
			Input{Candidates: []Candidate{unready("a")}, Replicas: 1}, "", ReasonNoCandidateReady, false, false},
		{"a node that does not exist is no candidate",
			Input{Candidates: []Candidate{unknown}, Replicas: 1, Current: []string{"a"}}, "", ReasonUnknownNode, true, false},
		{"a node outside the region is no candidate",
			Input{Candidates: []Candidate{stranger}, Replicas: 1}, "", ReasonNotMember, false, false},
		{"unknown nodes and strangers together have a reason of their own",
			Input{Candidates: []Candidate{unknown, {NodeName: "b", Exists: true, Ready: true}}, Replicas: 1}, "", ReasonNoCandidate, false, false},
		{"an active node that left the list loses the role",
			Input{Candidates: []Candidate{ready("b")}, Replicas: 1, Current: []string{"a"}}, "b", ReasonElected, true, true},
		{"an empty list says so",
			Input{Replicas: 1, Current: []string{"a"}}, "", ReasonNoEndpoints, true, false},
		{"no replicas elect nobody",
			Input{Candidates: []Candidate{ready("a")}, Current: []string{"a"}}, "", ReasonNoReplicas, true, false},
		{"scaling down keeps the first in list order",
			Input{Candidates: []Candidate{ready("c"), ready("a"), ready("b")}, Replicas: 1, Current: []string{"a", "b", "c"}}, "c", ReasonElected, true, true},
		{"scaling down drops an unready node first",
			Input{Candidates: []Candidate{unready("a"), ready("b")}, Replicas: 1, Current: []string{"a", "b"}}, "b", ReasonElected, true, true},
		{"several replicas fill in list order and are told sorted",
			Input{Candidates: []Candidate{ready("c"), ready("a"), ready("b")}, Replicas: 2}, "a c", ReasonElected, true, true},
		{"fewer ready than wanted is said",
			Input{Candidates: []Candidate{ready("a"), unready("b")}, Replicas: 2, Current: []string{"a", "b"}}, "a b", ReasonTooFewReady, false, true},
		{"a second change within the interval waits",
			Input{Candidates: []Candidate{unready("a"), ready("b")}, Replicas: 1, Current: []string{"a"},
				Now: noon.Add(10 * time.Second), LastChange: noon, MinInterval: 30 * time.Second}, "a", ReasonChangeDelayed, false, false},
		{"after the interval the change happens",
			Input{Candidates: []Candidate{unready("a"), ready("b")}, Replicas: 1, Current: []string{"a"},
				Now: noon.Add(30 * time.Second), LastChange: noon, MinInterval: 30 * time.Second}, "b", ReasonElected, true, true},
		{"without a known last change nothing waits",
			Input{Candidates: []Candidate{unready("a"), ready("b")}, Replicas: 1, Current: []string{"a"}, MinInterval: 30 * time.Second},
			"b", ReasonElected, true, true},
		{"the place of a node that is gone is filled at once",
			Input{Candidates: []Candidate{unknown, ready("b")}, Replicas: 1, Current: []string{"a"},
				Now: noon.Add(time.Second), LastChange: noon, MinInterval: 30 * time.Second}, "b", ReasonElected, true, true},
		{"a clock that went back delays by no more than the interval",
			Input{Candidates: []Candidate{unready("a"), ready("b")}, Replicas: 1, Current: []string{"a"},
				Now: noon, LastChange: noon.Add(time.Hour), MinInterval: 30 * time.Second}, "a", ReasonChangeDelayed, false, false},
		{"a node that has just become unready keeps its role for a moment",
			Input{Candidates: []Candidate{since("a", noon), ready("b")}, Replicas: 1, Current: []string{"a"},
				Now: noon.Add(2 * time.Second), Settle: 3 * time.Second}, "a", ReasonChangeDelayed, false, false},
		{"and no longer",
			Input{Candidates: []Candidate{since("a", noon), ready("b")}, Replicas: 1, Current: []string{"a"},
				Now: noon.Add(3 * time.Second), Settle: 3 * time.Second}, "b", ReasonElected, true, true},
		{"nobody knows since when it is unready",
			Input{Candidates: []Candidate{unready("a"), ready("b")}, Replicas: 1, Current: []string{"a"},
				Now: noon, Settle: 3 * time.Second}, "b", ReasonElected, true, true},
		{"where all become unready one after the other nobody's role moves",
			Input{Candidates: []Candidate{since("a", noon), since("b", noon.Add(time.Second))}, Replicas: 1, Current: []string{"a"},
				Now: noon.Add(3 * time.Second), Settle: 3 * time.Second}, "a", ReasonNoCandidateReady, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Elect(c.in)
			if got := strings.Join(d.Active, " "); got != c.active || d.Reason != c.reason || d.Changed != c.changed || d.Elected != c.elected {
				t.Errorf("active %q, reason %s, changed %t, elected %t; want %q, %s, %t, %t (%s)",
					got, d.Reason, d.Changed, d.Elected, c.active, c.reason, c.changed, c.elected, d.Message)
			}
			if d.RetryAfter > max(c.in.MinInterval, c.in.Settle) || (d.RetryAfter > 0) != (d.Reason == ReasonChangeDelayed) {
				t.Errorf("retry after %s with reason %s", d.RetryAfter, d.Reason)
			}
		})
	}
}

func TestEachRejectedCandidateIsGivenItsReason(t *testing.T) {
	busy := unready("d")
	busy.NotReady = "lost its tunnels"
	d := Elect(Input{Replicas: 1, Candidates: []Candidate{
		ready("a"), {NodeName: "b"}, {NodeName: "c", Exists: true, Ready: true}, busy, ready("a"),
	}})
	want := []Rejection{
		{"b", RejectedUnknownNode, "does not exist"},
		{"c", RejectedNotMember, "is not in this region"},
		{"d", RejectedNotReady, "lost its tunnels"},
		{"a", RejectedDuplicate, "is listed more than once"},
	}
	if !slices.Equal(d.Rejected, want) {
		t.Errorf("rejected %v, want %v", d.Rejected, want)
	}
	for _, r := range want {
		if !strings.Contains(d.Message, r.NodeName+" "+r.Message) {
			t.Errorf("message %q does not say that %s %s", d.Message, r.NodeName, r.Message)
		}
	}
}

// A run of the real thing: readiness flaps every second, the outcome is fed back, and the role moves at most every
// thirty seconds.
func TestARoleMovesAtMostOnceAnInterval(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const interval = 30 * time.Second
		in := Input{Replicas: 1, MinInterval: interval, Now: noon}
		for range rapid.IntRange(1, 120).Draw(t, "seconds") {
			in.Candidates = nil
			for _, name := range []string{"a", "b", "c"} {
				in.Candidates = append(in.Candidates, Candidate{NodeName: name, Exists: true, Member: true, Ready: rapid.Bool().Draw(t, name)})
			}
			d := Elect(in)
			if d.Changed {
				if !in.LastChange.IsZero() && in.Now.Sub(in.LastChange) < interval {
					t.Fatalf("changed from %v to %v only %s after the last change", in.Current, d.Active, in.Now.Sub(in.LastChange))
				}
				in.LastChange = in.Now
			}
			if len(in.Current) > 0 && len(d.Active) == 0 {
				t.Fatalf("%v lost the role to nobody", in.Current)
			}
			in.Current = d.Active
			in.Now = in.Now.Add(time.Second)
		}
	})
}

func TestAnElectionIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := Input{Replicas: rapid.IntRange(0, 3).Draw(t, "replicas")}
		for range rapid.IntRange(0, 6).Draw(t, "candidates") {
			in.Candidates = append(in.Candidates, Candidate{
				NodeName: rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "name"),
				Exists:   rapid.Bool().Draw(t, "exists"), Member: rapid.Bool().Draw(t, "member"), Ready: rapid.Bool().Draw(t, "ready"),
			})
		}
		in.Current = rapid.SliceOf(rapid.SampledFrom([]string{"a", "b", "c", "x"})).Draw(t, "current")
		first := Elect(in)
		in.Current = first.Active
		if second := Elect(in); second.Changed || !slices.Equal(second.Active, first.Active) {
			t.Fatalf("elected %v, then %v from the same candidates", first.Active, second.Active)
		}
		if len(first.Active) > in.Replicas || !slices.IsSorted(first.Active) {
			t.Fatalf("active %v with %d replicas", first.Active, in.Replicas)
		}
	})
}
