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
{{- .Values.serviceAccount.name | default (ternary (include "training.name" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* The pods that the operator makes for the run. */}}
{{- define "training.pods" -}}
capsfusion.io/run: {{ include "training.name" . }}
{{- end -}}

{{/* The pod template as JSON: the values that say a part of it, and trainer.podTemplate on top. */}}
{{- define "training.podTemplate" -}}
{{- $users := .Values.trainer.podTemplate -}}
{{- $spec := dict -}}
{{- range $key := list "imagePullSecrets" "volumes" "nodeSelector" "tolerations" -}}
{{- with index $.Values $key -}}
{{- if dig "spec" $key false $users }}{{ fail (printf "say %s, or trainer.podTemplate.spec.%s, not both" $key $key) }}{{ end -}}
{{- $_ := set $spec $key . -}}
{{- end -}}
{{- end -}}
{{- with .Values.podSecurityContext }}{{ $_ := set $spec "securityContext" . }}{{ end -}}
{{- with .Values.volumeMounts -}}
{{- if dig "spec" "containers" false $users }}{{ fail "say volumeMounts, or trainer.podTemplate.spec.containers, not both" }}{{ end -}}
{{- $_ := set $spec "containers" (list (dict "name" "pytorch" "volumeMounts" .)) -}}
{{- end -}}
{{- $metadata := dict "labels" .Values.podLabels "annotations" .Values.podAnnotations -}}
{{- mergeOverwrite (dict "metadata" $metadata "spec" $spec) $users | toJson -}}
{{- end -}}
