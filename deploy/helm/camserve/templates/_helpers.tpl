{{- define "camserve.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* The Service that has an address for each api pod. */}}
{{- define "camserve.replicas" -}}
{{ include "camserve.name" . }}-api.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end -}}

{{/* Arguments: root, part. */}}
{{- define "camserve.selector" -}}
app.kubernetes.io/name: camserve
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "camserve.labels" -}}
{{ include "camserve.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- define "camserve.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{/* What a pod of a part has beside its containers and volumes. Arguments: root, part, values. */}}
{{- define "camserve.pod" -}}
serviceAccountName: {{ include "camserve.name" .root }}
automountServiceAccountToken: false
# Else the Services' own variables (CAMSERVE_EDGE_PORT=tcp://…) would be taken for settings.
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
# Both times, and some for the last work and the end.
terminationGracePeriodSeconds: {{ add (.values.lameDuckSeconds | default 0) .values.drainSeconds 15 }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "camserve.selector" . | nindent 8 }}
{{- with .values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "camserve.container" -}}
image: {{ include "camserve.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources: {{ toYaml .values.resources | nindent 2 }}
{{- end -}}

{{/* Settings of every part. Arguments: root, values. */}}
{{- define "camserve.environment" -}}
- {name: CAMSERVE_PUBLIC_URL, value: {{ .root.Values.publicUrl | quote }}}
- {name: CAMSERVE_DRAIN_S, value: {{ .values.drainSeconds | quote }}}
- {name: CAMSERVE_LAME_DUCK_S, value: {{ .values.lameDuckSeconds | default 0 | quote }}}
{{- range $name, $value := .root.Values.settings }}
- name: CAMSERVE_{{ $name | upper }}
  {{- if kindIs "map" $value }}
  value: {{ toJson $value | quote }}
  {{- else if kindIs "slice" $value }}
  value: {{ join "," $value | quote }}
  {{- else if and (kindIs "float64" $value) (eq (floor $value) $value) }}
  {{- /* Else 1000000 would become 1e+06. */}}
  value: {{ int64 $value | quote }}
  {{- else }}
  value: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Settings of replicas and workers. Arguments: root, values. */}}
{{- define "camserve.replicaEnvironment" -}}
{{ include "camserve.environment" . }}
- {name: CAMSERVE_METRICS_HOST, value: {{ .root.Values.listenHost | quote }}}
- name: CAMSERVE_TORCH_THREADS
  valueFrom: {resourceFieldRef: {resource: limits.cpu}}
- name: CAMSERVE_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ .root.Values.redis.existingSecret }}, key: {{ .root.Values.redis.key }}}}
{{- with .root.Values.objects }}
- {name: CAMSERVE_OBJECTS_URL, value: {{ .url | quote }}}
- {name: CAMSERVE_S3_REGION, value: {{ .region | quote }}}
{{- with .endpoint }}
- {name: CAMSERVE_S3_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- with .existingSecret }}
- name: CAMSERVE_S3_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ . }}, key: access-key-id}}
- name: CAMSERVE_S3_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: secret-access-key}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "camserve.replicaMounts" -}}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
- {name: keys, mountPath: /data/keys, readOnly: true}
{{- if .Values.models.existingClaim }}
- {name: models, mountPath: /data/models, readOnly: true}
{{- end }}
{{- end -}}

{{- define "camserve.replicaVolumes" -}}
- name: data
  emptyDir: {sizeLimit: 1Gi}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
- name: keys
  secret: {secretName: {{ .Values.keys.existingSecret }}, defaultMode: 0440}
{{- with .Values.models.existingClaim }}
- name: models
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- end -}}

{{/* A start may load large models; then the supervisor asks every few seconds. */}}
{{- define "camserve.replicaProbes" -}}
startupProbe:
  httpGet: {path: /ready, port: metrics}
  periodSeconds: 2
  failureThreshold: 150
readinessProbe:
  httpGet: {path: /ready, port: metrics}
  periodSeconds: 2
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /live, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 6
{{- end -}}
