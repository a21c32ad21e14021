package kernels

import (
	"errors"
	"strings"
	"testing"
)

func TestEveryCellHasAResultOrAReason(t *testing.T) {
	job := &Job{}
	load := Suite{Name: "load", Driver: DriverNone, Job: job}
	lab := Suite{Name: "lab", Driver: DriverWireGuard, Checks: []string{"mtu", "policy"}, Job: job, read: readLab}
	ipsec := Suite{Name: "lab", Driver: DriverIPsec, Checks: []string{"mtu"}, Reason: "there is no driver"}
	nameless := Suite{Name: "nameless", Driver: DriverNone}
	report := `{"Check":"mtu","Evidence":"1400"}` + "\n" + `{"Check":"policy","Error":"it went\nthrough"}` + "\n"
	for _, c := range []struct {
		name string
		fill func(*Matrix)
		says []string
		err  string
	}{
		{"all filled", func(m *Matrix) {
			m.Want(load)
			m.Put(load, "6.1", load.Cells(Outcome{}, nil))
			m.Want(ipsec)
			m.Put(ipsec, "6.1", ipsec.Cells(Outcome{}, nil))
		}, []string{"load   -               passed", "not run [1]", "[1] there is no driver"}, ""},
		{"a suite that was never run", func(m *Matrix) { m.Want(load) }, []string{"NO REASON"}, "1 have neither"},
		{"not run, and no reason", func(m *Matrix) {
			m.Want(nameless)
			m.Put(nameless, "6.1", nameless.Cells(Outcome{}, nil))
		}, []string{"NO REASON"}, "1 have neither"},
		{"a test failed", func(m *Matrix) {
			m.Want(load)
			m.Put(load, "6.1", load.Cells(Outcome{Status: 1, Output: "--- FAIL: TestX (1s)\nFAIL"}, nil))
		}, []string{"FAILED [1]", "[1] --- FAIL: TestX"}, "1 cells of the matrix failed"},
		{"the kernel did not boot", func(m *Matrix) {
			m.Want(lab)
			m.Put(lab, "6.1", lab.Cells(Outcome{}, errors.New("panic\nand more")))
		}, []string{"[1] panic\n"}, "2 cells of the matrix failed"},
		{"a check of the lab failed", func(m *Matrix) {
			m.Want(lab)
			m.Put(lab, "6.1", lab.Cells(Outcome{Status: 1, Report: report}, nil))
		}, []string{"mtu     wireguard (kernel)  passed", "[1] it went\n"}, "1 cells of the matrix failed"},
		{"a check of the lab said nothing", func(m *Matrix) {
			m.Want(lab)
			m.Put(lab, "6.1", lab.Cells(Outcome{Status: 1, Output: "no such check", Report: strings.SplitAfter(report, "\n")[0]}, nil))
		}, []string{"the last words: no such check"}, "1 cells of the matrix failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := NewMatrix("6.1")
			c.fill(m)
			var out strings.Builder
			err := m.Print(&out)
			for _, s := range c.says {
				if !strings.Contains(out.String(), s) {
					t.Errorf("the matrix lacks %q:\n%s", s, &out)
				}
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v, want %q:\n%s", err, c.err, &out)
			}
		})
	}
}
