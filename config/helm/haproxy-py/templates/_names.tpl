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
