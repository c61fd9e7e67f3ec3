{{- define "training.name" -}}
{{- .Values.name | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "training.labels" -}}
app.kubernetes.io/name: capsfusion-training
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: capsfusion
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "training.account" -}}
{{- .Values.serviceAccount.name | default (include "training.name" .) -}}
{{- end -}}

{{/* The pods that the operator makes for the run. */}}
{{- define "training.pods" -}}
capsfusion.io/run: {{ include "training.name" . }}
{{- end -}}
