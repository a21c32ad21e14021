package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// notice heads every template.
const notice = "{{- /* Generated from manifests/ by `make generate`: edit there. */ -}}\n"

// fromValues are the lines that the chart's values decide.
var fromValues = map[string]string{
	driverLine:                      "vpn-driver: {{ .Values.vpnDriver | quote }}",
	`enable-l3-tunnel: "true"`:      "enable-l3-tunnel: {{ .Values.enableL3Tunnel | quote }}",
	`enable-l7-proxy: "true"`:       "enable-l7-proxy: {{ .Values.enableL7Proxy | quote }}",
	"imagePullPolicy: IfNotPresent": "imagePullPolicy: {{ .Values.image.pullPolicy }}",
	"replicas: 2":                   "replicas: {{ .Values.controller.replicas }}",
}

// Annotations that the chart adds.
const (
	// keep has Helm leave the CRDs: deleting them would delete every Gateway.
	keep = "    helm.sh/resource-policy: keep\n"
	// hook has Helm run the cleanup before it deletes anything.
	hook = "  annotations:\n    helm.sh/hook: pre-delete\n    helm.sh/hook-weight: \"%d\"\n" +
		"    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded\n"
)

// writeChart makes the templates of the chart anew from the kustomizations under root.
func writeChart(root, chart string) error {
	templates := filepath.Join(chart, "templates")
	if err := os.RemoveAll(templates); err != nil {
		return fmt.Errorf("remove the old templates: %w", err)
	}
	if err := os.MkdirAll(templates, 0o755); err != nil {
		return fmt.Errorf("make the templates' folder: %w", err)
	}
	for _, dir := range []string{"install", "cleanup"} {
		files, err := resources(filepath.Join(root, dir))
		if err != nil {
			return err
		}
		for weight, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("read a manifest: %w", err)
			}
			template, err := toTemplate(string(text))
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			if dir == "cleanup" {
				template = strings.ReplaceAll(template, "\nmetadata:\n", "\nmetadata:\n"+fmt.Sprintf(hook, weight))
			}
			name := filepath.Base(filepath.Dir(file)) + "-" + filepath.Base(file)
			if err := os.WriteFile(filepath.Join(templates, name), []byte(notice+template), 0o644); err != nil {
				return fmt.Errorf("write a template: %w", err)
			}
		}
	}
	return nil
}

func toTemplate(text string) (string, error) {
	if strings.Contains(text, "{{") {
		return "", fmt.Errorf("it holds {{, which Helm would take for its own")
	}
	lines := strings.Split(strings.TrimPrefix(text, "---\n"), "\n")
	for i, l := range lines {
		word := strings.TrimLeft(l, " -")
		indent := l[:len(l)-len(word)]
		if to, ok := fromValues[word]; ok {
			lines[i] = indent + to
		}
		if name, ok := imageOf(l); ok {
			lines[i] = indent + "image: {{ .Values.image.repository }}/" + name + ":{{ .Values.image.tag | default .Chart.AppVersion }}"
		}
	}
	text = strings.Join(lines, "\n")
	if strings.Contains(text, "\nkind: CustomResourceDefinition\n") {
		text = strings.Replace(text, "\n  annotations:\n", "\n  annotations:\n"+keep, 1)
		if !strings.Contains(text, keep) {
			return "", fmt.Errorf("its metadata has no annotations to which the chart could add its own")
		}
	}
	return text, nil
}
