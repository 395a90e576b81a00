{{- define "flyweight.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "flyweight.fullname" -}}
{{- $name := include "flyweight.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "flyweight.selectorLabels" -}}
app.kubernetes.io/name: {{ include "flyweight.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "flyweight.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "flyweight.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "flyweight.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "flyweight.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "flyweight.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The command line of `flyweight serve`, one argument per line. */}}
{{- define "flyweight.args" -}}
- serve
- {{ .Values.repository.mountPath | quote }}
- --host=0.0.0.0
- --port=8001
- --metrics-host=0.0.0.0
- --metrics-port=8002
{{- with .Values.server }}
- --poll-seconds={{ .pollSeconds }}
- --max-in-flight={{ int .maxInFlight }}
- --max-running={{ int .maxRunning }}
- --threads={{ int .threads }}
- --max-message-megabytes={{ int .maxMessageMegabytes }}
- --model-control={{ .modelControl }}
- {{ ternary "--allow-control" "--no-allow-control" .allowControl }}
{{- if .strict }}
- --strict
{{- end }}
- --log-format={{ .logFormat }}
- --shutdown-delay-seconds={{ .shutdownDelaySeconds }}
- --drain-seconds={{ .drainSeconds }}
{{- end }}
{{- if .Values.tls.enabled }}
- --tls-cert=/tls/tls.crt
- --tls-key=/tls/tls.key
{{- if .Values.tls.clientCertificates }}
- --tls-client-ca=/tls/ca.crt
{{- end }}
{{- end }}
{{- range .Values.server.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{/* One probe: its figures, and how it asks. */}}
{{- define "flyweight.probe" -}}
{{- if .root.Values.tls.enabled -}}
tcpSocket:
  port: grpc
{{- else -}}
grpc:
  port: 8001
{{- end }}
{{ toYaml .probe }}
{{- end }}

{{/* The volume that holds the models. */}}
{{- define "flyweight.repositoryVolume" -}}
{{- with .Values.repository -}}
name: repository
{{- if eq .kind "existingClaim" }}
persistentVolumeClaim:
  claimName: {{ .existingClaim | quote }}
  readOnly: true
{{- else if eq .kind "configMap" }}
configMap:
  name: {{ .configMap.name | quote }}
  items: {{- toYaml .configMap.items | nindent 4 }}
{{- else if eq .kind "hostPath" }}
hostPath:
  path: {{ .hostPath | quote }}
  type: Directory
{{- else if .sizeLimit }}
emptyDir:
  sizeLimit: {{ .sizeLimit }}
{{- else }}
emptyDir: {}
{{- end }}
{{- end }}
{{- end }}
