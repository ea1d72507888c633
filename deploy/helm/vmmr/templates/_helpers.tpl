{{- define "vmmr.name" -}}{{ printf "%s-vmmr" .Release.Name | trunc 50 | trimSuffix "-" }}{{- end }}

{{- define "vmmr.labels" -}}
app.kubernetes.io/name: vmmr
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "vmmr.image" -}}
{{ with .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .image }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- /* The components that this release has: what they are called, the values and the ports of each. */}}
{{- define "vmmr.components" -}}
- {component: embedder, prefix: VMMR_EMBEDDER, port: 50051, grpc: true, values: embedder, batcher: embed}
- {component: search, prefix: VMMR_SEARCH, port: 50052, grpc: true, values: search, batcher: search, ray: {{ .Values.search.ray.enabled }}}
{{- if .Values.search.writer.enabled }}
- {component: search-writer, prefix: VMMR_SEARCH, port: 50052, grpc: true, values: search, writer: true}
{{- end }}
{{- if .Values.web.enabled }}
- {component: web, prefix: VMMR_WEB, port: 8080, grpc: false, values: web}
{{- end }}
{{- end }}

{{- define "vmmr.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Where a server finds model or gallery. */}}
{{- define "vmmr.arguments" -}}
{{- $values := get .root.Values .values }}
{{- if eq .component "embedder" }}[serve, --model, {{ ternary "/data/model" "/model" (ne $values.model "") }}]
{{- else if .ray }}[serve, --index, /data/index, --read-only]
{{- else if .writer }}[serve, --index, /data/gallery{{ with $values.gallery }}, --backup-to, {{ . | quote }}{{ end }}]
{{- else if eq .component "search" }}[serve, --index, {{ ternary "/data/gallery" "/index" (ne $values.gallery "") }}, --read-only]
{{- else }}[serve]
{{- end }}
{{- end }}

{{- /* A value as a program reads it: Helm has numbers of files as floats, and writes large ones as 3.3554432e+07. */}}
{{- define "vmmr.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ toString . }}{{ end }}
{{- end }}

{{- define "vmmr.environment" -}}
{{- $root := .root }}
{{- $env := dict
  (printf "%s_DRAIN_PAUSE_S" .prefix) (toString $root.Values.shutdown.drainPauseSeconds)
  (printf "%s_DRAIN_S" .prefix) (toString $root.Values.shutdown.drainSeconds)
}}
{{- if .grpc }}
{{- if $root.Values.tls.secret }}
{{- $_ := set $env (printf "%s_TLS_CERT" .prefix) "/tls/tls.crt" }}
{{- $_ := set $env (printf "%s_TLS_KEY" .prefix) "/tls/tls.key" }}
{{- if $root.Values.tls.mutual }}{{- $_ := set $env (printf "%s_TLS_CLIENT_CA" .prefix) "/tls/ca.crt" }}{{- end }}
{{- end }}
{{- if $root.Values.token.secret }}{{- $_ := set $env (printf "%s_TOKEN_FILE" .prefix) "/token/token" }}{{- end }}
{{- if .ray }}
{{- $_ := set $env "VMMR_SEARCH_ENGINE" "ray" }}
{{- $_ := set $env "VMMR_SEARCH_RAY_ADDRESS" (printf "%s-head-svc:6379" (include "vmmr.ray.name" $root)) }}
{{- $_ := set $env "VMMR_SEARCH_REPLICAS" (toString $root.Values.search.ray.shardReplicas) }}
{{- end }}
{{- else }}
{{- $name := include "vmmr.name" $root }}
{{- $_ := set $env "VMMR_WEB_EMBEDDER" (printf "%s-embedder.%s.svc:50051" $name $root.Release.Namespace) }}
{{- $_ := set $env "VMMR_WEB_SEARCH" (printf "%s-search.%s.svc:50052" $name $root.Release.Namespace) }}
{{- if $root.Values.tls.secret }}
{{- $_ := set $env "VMMR_WEB_SERVICES_TLS_CA" "/tls/ca.crt" }}
{{- if $root.Values.tls.mutual }}
{{- $_ := set $env "VMMR_WEB_SERVICES_TLS_CERT" "/tls/tls.crt" }}
{{- $_ := set $env "VMMR_WEB_SERVICES_TLS_KEY" "/tls/tls.key" }}
{{- end }}
{{- end }}
{{- if $root.Values.token.secret }}{{- $_ := set $env "VMMR_WEB_SERVICES_TOKEN_FILE" "/token/token" }}{{- end }}
{{- end }}
{{- $own := (get $root.Values .values).env }}
{{- if .writer }}{{- $own = merge (dict) $root.Values.search.writer.env $own }}{{- end }}
{{- range $key, $value := merge (dict) $own $env }}
- {name: {{ $key }}, value: {{ include "vmmr.text" $value | quote }}}
{{- end }}
{{- end }}

{{- /* What is asked of a server. The cluster's own probe of gRPC speaks no TLS. */}}
{{- define "vmmr.ready" -}}
{{- if not .grpc }}httpGet: {path: /readyz, port: main}
{{- else if .root.Values.tls.secret }}exec: {command: [python, -m, svckit.probe, "127.0.0.1:{{ .port }}", --tls-ca, /tls/ca.crt{{ if .root.Values.tls.mutual }}, --tls-cert, /tls/tls.crt, --tls-key, /tls/tls.key{{ end }}]}
{{- else }}grpc: {port: {{ .port }}}
{{- end }}
{{- end }}

{{- define "vmmr.alive" -}}
{{- if not .grpc }}httpGet: {path: /healthz, port: main}
{{- else if .root.Values.tls.secret }}tcpSocket: {port: main}
{{- else }}grpc: {port: {{ .port }}}
{{- end }}
{{- end }}

{{- /* The command that brings what the server serves, before it starts; empty if it is in the image. */}}
{{- define "vmmr.fetch" -}}
{{- $values := get .root.Values .values }}
{{- if and (eq .component "embedder") $values.model }}[vmmr-embedder, fetch, {{ $values.model | quote }}, /data/model]
{{- else if and .writer $values.writer.from }}[vmmr-search, restore, --if-absent, {{ $values.writer.from | quote }}, /data/gallery]
{{- else if .writer }}[sh, -c, "[ -e /data/gallery ] || { rm -rf /data/new && cp -r /index /data/new && mv /data/new /data/gallery; }"]
{{- else if and (eq .component "search") $values.gallery }}[vmmr-search, restore, --if-absent, {{ $values.gallery | quote }}, /data/gallery]
{{- end }}
{{- end }}

{{- /* What the pods of all components may do, and that those of one are spread over zones and nodes. */}}
{{- define "vmmr.anyPod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "vmmr.labels" $ | nindent 8 }}
        {{- with $.node }}
        ray.io/node-type: {{ . }}
        {{- end }}
  {{- end }}
{{- end }}

{{- define "vmmr.pod" -}}
{{- $root := .root }}
{{- $values := get $root.Values .values }}
{{- $fetch := include "vmmr.fetch" . }}
{{- $image := include "vmmr.image" (dict "root" $root "image" (ternary (dig "ray" "image" "" $values) $values.image (eq (toString .ray) "true"))) }}
metadata:
  labels:
    {{- include "vmmr.labels" . | nindent 4 }}
  {{- if and (eq .component "search") $values.galleryRevision }}
  annotations: {vmmr/gallery-revision: {{ $values.galleryRevision | quote }}}
  {{- end }}
spec:
  {{- include "vmmr.anyPod" . | nindent 2 }}
  terminationGracePeriodSeconds: {{ add (include "vmmr.ending" $root) 5 }}
  {{- if $fetch }}
  initContainers:
    - name: fetch
      image: {{ $image }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: {{ $fetch }}
      securityContext: {{- include "vmmr.securityContext" . | nindent 8 }}
      {{- with $root.Values.storageSecret }}
      envFrom: [{secretRef: {name: {{ . }}}}]
      {{- end }}
      resources: {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: data, mountPath: /data}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ $image }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      {{- if .ray }}
      # A front end is a node of the cluster without cores of its own. Its part of Ray ends with the container, after the server.
      command:
        - sh
        - -c
        - ray start --address="$VMMR_SEARCH_RAY_ADDRESS" --num-cpus=0 --object-store-memory=268435456 --disable-usage-stats && exec vmmr-search "$@"
        - vmmr-search
      {{- end }}
      args: {{ include "vmmr.arguments" . }}
      env: {{- include "vmmr.environment" . | nindent 8 }}
      {{- if and .writer $root.Values.storageSecret }}
      envFrom: [{secretRef: {name: {{ $root.Values.storageSecret }}}}]
      {{- end }}
      ports:
        - {name: main, containerPort: {{ .port }}}
        - {name: metrics, containerPort: 9464}
      startupProbe:
        {{- include "vmmr.ready" . | nindent 8 }}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 120
      readinessProbe:
        {{- include "vmmr.ready" . | nindent 8 }}
        periodSeconds: 10
        timeoutSeconds: 5
      livenessProbe:
        {{- include "vmmr.alive" . | nindent 8 }}
        periodSeconds: 20
        timeoutSeconds: 5
      lifecycle: {preStop: {sleep: {seconds: {{ $root.Values.shutdown.preStopSeconds }}}}}
      securityContext: {{- include "vmmr.securityContext" . | nindent 8 }}
      resources: {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if $fetch }}
        - {name: data, mountPath: /data{{ if eq .component "embedder" }}, readOnly: true{{ end }}}
        {{- end }}
        {{- if .ray }}
        - {name: data, mountPath: /data, readOnly: true}
        - {name: shm, mountPath: /dev/shm}
        {{- end }}
        {{- if $root.Values.tls.secret }}
        - {name: tls, mountPath: /tls, readOnly: true}
        {{- end }}
        {{- if $root.Values.token.secret }}
        - {name: token, mountPath: /token, readOnly: true}
        {{- end }}
  volumes:
    {{- if .ray }}
    {{- include "vmmr.ray.volumes" $root | nindent 4 }}
    - {name: shm, emptyDir: {medium: Memory, sizeLimit: 512Mi}}
    {{- else }}
    - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
    {{- end }}
    {{- if and $fetch (not .writer) }}
    - {name: data, emptyDir: {sizeLimit: {{ $values.gallerySize | default "2Gi" }}}}
    {{- end }}
    {{- with $root.Values.tls.secret }}
    - {name: tls, secret: {secretName: {{ . }}, defaultMode: 0440}}
    {{- end }}
    {{- with $root.Values.token.secret }}
    - {name: token, secret: {secretName: {{ . }}, defaultMode: 0440}}
    {{- end }}
{{- end }}

{{- define "vmmr.ending" -}}
{{ addf .Values.shutdown.preStopSeconds .Values.shutdown.drainPauseSeconds .Values.shutdown.drainSeconds | ceil | int }}
{{- end }}
