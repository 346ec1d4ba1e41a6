{{- define "airbyte-events.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "airbyte-events.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "airbyte-events.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "airbyte-events.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "airbyte-events.selector" -}}
app.kubernetes.io/name: {{ include "airbyte-events.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "airbyte-events.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "airbyte-events.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "airbyte-events.secret" -}}
{{- default (include "airbyte-events.fullname" .) .Values.secret.existing }}
{{- end }}

{{- define "airbyte-events.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "airbyte-events.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "airbyte-events.replicas" -}}
{{- $replicas := int (default .Values.replicas .Values.replicaCount) }}
{{- if and (gt $replicas 1) (eq .Values.store.kind "sqlite") }}
{{- fail (printf "replicas: SQLite serves one listener, not %d: set store.kind to postgresql, and its URL in secret.store" $replicas) }}
{{- end }}
{{- $replicas }}
{{- end }}

{{- define "airbyte-events.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}
