{{- define "etl.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "etl.labels" -}}
app.kubernetes.io/name: capsfusion-etl
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: capsfusion
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "etl.account" -}}
{{- .Values.serviceAccount.name | default (ternary (include "etl.name" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "etl.image" -}}
{{- with .Values.image -}}
{{- $_ := required "image.repository is required: build the image with `make images`, push it, and say where it is" .repository -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{/* The command line behind `capsfusion`, as a YAML list. */}}
{{- define "etl.arguments" -}}
{{- $found := list .Values.stage "--lake" .Values.lake -}}
{{- if .Values.pairs }}{{ $found = concat $found (list "--pairs" .Values.pairs) }}{{ end -}}
{{- if .Values.config }}{{ $found = concat $found (list "--config" "/etc/capsfusion/settings.yaml") }}{{ end -}}
{{- concat $found .Values.args | toYaml -}}
{{- end -}}

{{/* A setting as a quoted string. A large number keeps its digits: Helm has all numbers as floats. */}}
{{- define "etl.words" -}}
{{- kindIs "string" . | ternary . (toJson .) | quote -}}
{{- end -}}

{{/* Spark's settings, those of the user on top. */}}
{{- define "etl.conf" -}}
spark.sql.extensions: io.delta.sql.DeltaSparkSessionExtension
spark.sql.catalog.spark_catalog: org.apache.spark.sql.delta.catalog.DeltaCatalog
{{- if .Values.gpu.enabled }}
spark.executor.resource.gpu.amount: {{ .Values.gpu.perExecutor | quote }}
spark.executor.resource.gpu.discoveryScript: /opt/capsfusion/gpus.sh
spark.executor.resource.gpu.vendor: {{ .Values.gpu.resource | splitList "/" | first }}
spark.task.resource.gpu.amount: {{ divf .Values.gpu.perExecutor .Values.spark.executor.cores | printf "%.4f" | quote }}
{{- end }}
{{- range $key, $value := .Values.spark.conf }}
{{ $key }}: {{ include "etl.words" $value }}
{{- end }}
{{- end -}}

{{- define "etl.volumes" -}}
{{- $found := list -}}
{{- if .Values.config }}{{ $found = list (dict "name" "settings" "configMap" (dict "name" (include "etl.name" .))) }}{{ end -}}
{{- concat $found .Values.volumes | toYaml -}}
{{- end -}}

{{- define "etl.mounts" -}}
{{- $found := list -}}
{{- if .Values.config }}{{ $found = list (dict "name" "settings" "mountPath" "/etc/capsfusion" "readOnly" true) }}{{ end -}}
{{- concat $found .Values.volumeMounts | toYaml -}}
{{- end -}}

{{- define "etl.secrets" -}}
{{- $found := list -}}
{{- range .Values.secrets }}{{ $found = append $found (dict "secretRef" (dict "name" .)) }}{{ end -}}
{{- toYaml $found -}}
{{- end -}}

{{- define "etl.security" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* What all pods share: place, secrets for the registry, security. */}}
{{- define "etl.placed" -}}
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "etl.queue" -}}
{{- with .Values.queueName }}
kueue.x-k8s.io/queue-name: {{ . }}
{{- end }}
{{- end -}}

{{/* Memory that the driver's pod asks for: its heap and Spark's usual overhead, a tenth or 384 MiB. */}}
{{- define "etl.driverMemory" -}}
{{- $size := .Values.spark.driver.memory -}}
{{- $mib := trimSuffix "g" (trimSuffix "m" $size) | int -}}
{{- if hasSuffix "g" $size }}{{ $mib = mul $mib 1024 }}{{ end -}}
{{- add $mib (max 384 (div $mib 10)) }}Mi
{{- end -}}
