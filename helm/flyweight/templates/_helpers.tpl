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
- --runtime={{ .runtime }}
- --poll-seconds={{ .pollSeconds }}
- --load-threads={{ int .loadThreads }}
- --max-in-flight={{ int .maxInFlight }}
- --max-in-flight-per-client={{ int .maxInFlightPerClient }}
- --max-running={{ int .maxRunning }}
- --threads={{ int .threads }}
{{- range $key, $value := .sessionEntries }}
- {{ printf "--session-entry=%s=%s" $key $value | quote }}
{{- end }}
- --response-cache-megabytes={{ int .responseCacheMegabytes }}
- {{ ternary "--memory-guard" "--no-memory-guard" .memoryGuard }}
- --memory-limit-megabytes={{ int .memoryLimitMegabytes }}
- {{ ternary "--measure-memory" "--no-measure-memory" .measureMemory }}
- --model-control={{ .modelControl }}
- {{ ternary "--allow-control" "--no-allow-control" .allowControl }}
- --compat={{ .compat }}
- {{ ternary "--triton-metrics" "--no-triton-metrics" .tritonMetrics }}
{{- if .strict }}
- --strict
{{- end }}
- --log-format={{ .logFormat }}
- --log-level={{ .logLevel }}
{{- if .accessLog }}
- --access-log
{{- end }}
- --shutdown-delay-seconds={{ .shutdownDelaySeconds }}
- --drain-seconds={{ .drainSeconds }}
{{- end }}
{{- with .Values.limits }}
- --max-message-megabytes={{ int .maxMessageMegabytes }}
- --max-tensor-megabytes={{ int .maxTensorMegabytes }}
- --max-string-megabytes={{ int .maxStringMegabytes }}
- --max-tensors={{ int .maxTensors }}
- --max-metadata-bytes={{ int .maxMetadataBytes }}
{{- end }}
{{- with .Values.connections }}
- --max-connections={{ int .max }}
- --max-streams={{ int .maxStreams }}
- --max-connection-age-seconds={{ .maxAgeSeconds }}
- --max-connection-age-grace-seconds={{ .maxAgeGraceSeconds }}
- --max-connection-idle-seconds={{ .maxIdleSeconds }}
- --keepalive-seconds={{ .keepaliveSeconds }}
- --keepalive-timeout-seconds={{ .keepaliveTimeoutSeconds }}
- --min-ping-seconds={{ .minPingSeconds }}
- --handshake-seconds={{ .handshakeSeconds }}
- --compression={{ .compression }}
{{- end }}
{{- if .Values.uploads.enabled }}
- --upload-folder=/uploads
- --upload-megabytes={{ int .Values.uploads.megabytes }}
{{- else }}
- --upload-megabytes=0
{{- end }}
{{- if .Values.traces.enabled }}
- --trace-folder=/traces
{{- end }}
{{- if .Values.access.enabled }}
- --access=/access/{{ .Values.access.key }}
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

{{/* One probe: its figures, and how it asks. The kubelet speaks no TLS over gRPC; "path" asks the metrics port then. */}}
{{- define "flyweight.probe" -}}
{{- if .root.Values.tls.enabled -}}
httpGet:
  path: {{ .path }}
  port: metrics
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
  readOnly: {{ not .writable }}
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
