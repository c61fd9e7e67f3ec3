{{- define "operator.name" -}}
{{- printf "%s-%s" .Release.Name "capsfusion-operator" | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "operator.selector" -}}
app.kubernetes.io/name: capsfusion-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "operator.labels" -}}
{{ include "operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: capsfusion
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "operator.account" -}}
{{- .Values.serviceAccount.name | default (ternary (include "operator.name" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "operator.image" -}}
{{- with .Values.image -}}
{{- $_ := required "image.repository is required: build the image with `make images`, push it, and say where it is" .repository -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "operator.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Namespaces whose runs are followed; none: all. */}}
{{- define "operator.namespaces" -}}
{{- if not .Values.allNamespaces -}}
{{- .Values.namespaces | default (list .Release.Namespace) | toJson -}}
{{- else -}}[]{{- end -}}
{{- end -}}
