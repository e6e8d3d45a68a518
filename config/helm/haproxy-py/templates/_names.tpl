{{- define "haproxy-py.name" -}}
{{- if contains "haproxy-py" .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-haproxy-py" .Release.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}
{{- define "haproxy-py.selector" -}}
app.kubernetes.io/name: haproxy-py
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "haproxy-py.labels" -}}
{{ include "haproxy-py.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "haproxy-py.default-config" -}}
instances:
  - name: my-instance
    ha: auto
    replicas:
      kubernetes: {service: my-instance, port: http}
    trusted_proxies: [10.0.0.0/8]
{{- end }}
{{- /* What is configured, with the default instance where nothing else says which instances there are. */}}
{{- define "haproxy-py.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if not (or $config.instances $config.instances_from) }}
{{- $config = merge $config (include "haproxy-py.default-config" . | fromYaml) }}
{{- end }}
{{- toYaml $config }}
{{- end }}
{{- /* The one Service that the service account may see; empty: every one. */}}
{{- define "haproxy-py.service" -}}
{{- if ne .Values.rbac.service "auto" }}
{{- .Values.rbac.service }}
{{- else }}
{{- $config := include "haproxy-py.config" . | fromYaml }}
{{- $services := list }}
{{- range $config.instances }}
{{- if kindIs "map" .replicas }}
{{- with .replicas.kubernetes }}{{ $services = append $services .service }}{{ end }}
{{- end }}
{{- end }}
{{- if and (not $config.instances_from) (eq (len (uniq $services)) 1) }}
{{- first $services }}
{{- end }}
{{- end }}
{{- end }}
