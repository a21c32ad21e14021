// Package hack tests the scripts of this folder.
package hack

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// kubectl is a fake: it keeps the ConfigMaps that it is told of, and all that was applied, in a folder. test/cluster runs
// the script against a real API server.
const kubectl = `#!/bin/bash
set -euo pipefail
cd "$FAKE"
echo "$*" >>calls
[[ $1 != --namespace ]] || shift 2
case "$*" in
"get --raw /version") echo "{\"major\": \"1\", \"minor\": \"$MINOR\"}" ;;
"get configmap raven-agent-config "*jsonpath*) sed -n 's/^  vpn-driver: //p' raven-agent-config 2>/dev/null || true ;;
"get secret "*) [[ ! -e secret ]] || echo "secret/$3" ;;
"get configmap "*) [[ ! -e $3 ]] || echo "configmap/$3" ;;
"get daemonset "* | "get deployment "*"--output name") [[ " $THERE " != *" $3 "* ]] || echo "$2/$3" ;;
"get job raven-cleanup "*succeeded*) [[ " $THERE " != *" raven-cleanup "* ]] || echo 1 ;;
"create --filename -")
	cat >created
	if grep -q "kind: Secret" created; then mv created secret; else mv created raven-agent-config; fi
	;;
"create --filename manifests/config/switches.yaml") touch raven-cfg ;;
"patch configmap raven-agent-config "*) echo "  vpn-driver: $(sed 's/.*"vpn-driver":"\([a-z]*\)".*/\1/' <<<"$*")" >raven-agent-config ;;
"apply "*) cat >>applied ;;
"delete "*"--filename -") cat >/dev/null ;;
esac
`

type script struct {
	t      *testing.T
	folder string
}

func newScript(t *testing.T) *script {
	t.Helper()
	s := &script{t: t, folder: t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.folder, "kubectl"), []byte(kubectl), 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *script) run(what string, env ...string) (string, error) {
	cmd := exec.CommandContext(s.t.Context(), "./deploy.sh", what)
	cmd.Env = append(os.Environ(), append([]string{"FAKE=" + s.folder, "KUBECTL=" + filepath.Join(s.folder, "kubectl"), "MINOR=30+", "THERE=",
		"REPOSITORY=registry.example/x", "VERSION=v7", "VPN_DRIVER=", "WAIT=1m"}, env...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *script) file(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.folder, name))
	if err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	return string(text)
}

func TestDeployRefusesAnOldKubernetesAndAnUnknownDriverBeforeItChangesAnything(t *testing.T) {
	s := newScript(t)
	for _, c := range []struct {
		env  []string
		says string
	}{
		{[]string{"MINOR=29", "VPN_DRIVER=wireguard"}, "Kubernetes 1.29: Raven needs 1.30 or later"},
		{[]string{"MINOR=", "VPN_DRIVER=wireguard"}, "cannot tell the cluster's version"},
		{[]string{"VPN_DRIVER=openvpn"}, "use ipsec (alias libreswan) or wireguard"},
		{[]string{"KUBECTL=no-such-kubectl"}, "needs kubectl"},
	} {
		if out, err := s.run("deploy", c.env...); err == nil || !strings.Contains(out, c.says) {
			t.Errorf("%v: %v\n%s", c.env, err, out)
		}
	}
	if calls := s.file("calls"); regexp.MustCompile("(?m) (apply|create|patch|delete) ").MatchString(calls) {
		t.Errorf("it changed something:\n%s", calls)
	}
}

func TestDeployAppliesTheImagesOfTheVersionAndKeepsTheUsersConfigMaps(t *testing.T) {
	s := newScript(t)
	driver := func() string {
		_, d, _ := strings.Cut(s.file("raven-agent-config"), "vpn-driver: ")
		return strings.TrimSpace(d)
	}
	for _, c := range []struct{ give, want string }{
		{"wireguard", "wireguard"}, // made
		{"", "wireguard"},          // left
		{"wireguard", "wireguard"}, // not written again
	} {
		if out, err := s.run("deploy", "VPN_DRIVER="+c.give); err != nil || driver() != c.want {
			t.Fatalf("VPN_DRIVER=%s: %v, the driver is %q\n%s", c.give, err, driver(), out)
		}
	}
	calls := s.file("calls")
	for words, times := range map[string]int{"create --filename -": 2, "create --filename manifests/config/switches.yaml": 1, "patch": 0, "rollout status daemonset/raven-agent-ds": 3} {
		if got := strings.Count(calls, words); got != times {
			t.Errorf("%d times %q, want %d:\n%s", got, words, times, calls)
		}
	}
	applied := s.file("applied")
	images := regexp.MustCompile(`(?m)^ *image: (.*)$`).FindAllStringSubmatch(applied, 3)
	var names []string
	for _, i := range images {
		names = append(names, i[1])
	}
	if want := []string{"registry.example/x/raven-controller:v7", "registry.example/x/raven-agent:v7", "registry.example/x/raven-agent:v7"}; !slices.Equal(names, want) {
		t.Errorf("images %q", names)
	}
	if strings.Contains(applied, "\nkind: ConfigMap\n") {
		t.Error("the user's ConfigMaps are applied")
	}
	if key := regexp.MustCompile(`vpn-connection-psk: "[A-Za-z0-9+/]{43}="`); !key.MatchString(s.file("secret")) || strings.Contains(calls, "vpn-connection-psk") {
		t.Errorf("the pre-shared key is\n%s\nand the calls are\n%s", s.file("secret"), calls)
	}
}

func TestUndeployCleansNodesOrSaysThatItDidNot(t *testing.T) {
	const goesOn = "delete --ignore-not-found --filename -"
	for _, c := range []struct {
		name, there, says     string
		cleans, fails, delete bool
	}{
		{"all there", "raven-agent-ds raven-tunnel-ds raven-controller", "", true, false, true},
		{"the agents deleted by hand", "raven-tunnel-ds raven-controller", "", true, false, true},
		{"a cleanup that was interrupted", "raven-cleanup-ds raven-controller", "", true, false, true},
		{"both DaemonSets deleted by hand", "raven-controller", "NO NODE WAS CLEANED", false, true, false},
		{"interrupted behind the cleanup", "raven-controller raven-cleanup", "cleaned before", false, false, true},
		{"nothing there", "", "no node is cleaned", false, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScript(t)
			out, err := s.run("undeploy", "THERE="+c.there)
			calls := s.file("calls")
			if (err != nil) != c.fails || !strings.Contains(out, c.says) {
				t.Errorf("%v, and it says\n%s", err, out)
			}
			if got := strings.Contains(calls, "wait --for=condition=complete"); got != c.cleans {
				t.Errorf("it cleans: %t\n%s", got, calls)
			}
			if got := strings.Contains(calls, goesOn); got != c.delete {
				t.Errorf("it deletes: %t\n%s", got, calls)
			}
		})
	}
}
